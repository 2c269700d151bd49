/* What nf4.c offers to the other files; kernels.py has the same structure. */

#ifndef GAMA_NF4_H
#define GAMA_NF4_H

#include <stddef.h>
#include <stdint.h>

/* Weights (N, K) as bitsandbytes stores them in NF4, two codes a byte, the earlier one in the upper half. K is a
   multiple of 64, and 64 weights share a scale. Scales are stored in 8 bits themselves (double quantization), 256 of
   them to a scale of their own, or as they are. */
typedef struct {
    const uint8_t *codes;   /* (N, K / 2) */
    const uint8_t *absmax8; /* (N * K / 64), or NULL where absmax holds the scales themselves */
    const float *absmax;    /* (N * K / 64 / 256, rounded up), or (N * K / 64) */
    const float *code8;     /* (256) values of absmax8 */
    const float *levels;    /* (16) values of the codes */
    float offset;           /* added to every scale that absmax8 gives */
    int64_t n, k;
} Weights;

/* Bytes of x (M, K) as products read it, a multiple of 64. */
size_t gama_ready_bytes(int64_t m, int64_t k);

/* x (M, K) as products read it; out is aligned to 64 bytes. */
void gama_make_ready(const float *x, int64_t m, int64_t k, void *out);

/* out (M, N) = ready x (M, K) times the weights transposed. */
void gama_multiply(const Weights *w, const void *ready, int64_t m, float *out, int threads);

/* Scales of rows [first, first + count) of the weights, (count, K / 64). */
void gama_scales(const Weights *w, int64_t first, int64_t count, float *out);

#endif
