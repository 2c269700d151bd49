/* Products of many rows (a prompt) with NF4 weights, in int8: twice as many a cycle as in bfloat16.

   Levels and x are rounded to 8 bits. The 32 odd places of a block of x share a scale, and the 32 even ones: they meet
   the lower and the upper halves of the weights' bytes. Sums of 32 are exact; these are added in float. */

#include "nf4.h"

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

#define BLOCK 64
#define PART 32           /* of a block: the odd or the even places */
#define LANES 16          /* outputs of a vector */
#define TILE (2 * LANES)  /* outputs that are computed together, */
#define ROWS 6            /* for as many rows of x: their sums stay in registers */
#define DEPTH 8           /* blocks of weights that are unpacked at a time, 16 KB: they stay in the nearest cache */
#define LEAST 1e-30f      /* a part of x below it is zeros */
#define MIDDLE 128        /* levels are unsigned to the instruction */

typedef struct { /* x of M rows, in tiles of ROWS; zeros follow the last row; parts is K / 32 */
    int8_t *codes;    /* (tiles, parts, 8 quarters, ROWS, 4) */
    float *scales;    /* (tiles, parts, ROWS) */
    int32_t *without; /* (tiles, parts, ROWS): what MIDDLE adds to a sum, to be taken away */
} Rounded;

/* -- x ------------------------------------------------------------------------------------------------------------- */

/* A part of a block of a row, every second place; what is written is `ROWS * 4` apart. */
static void round_part(const float *x, int8_t *codes, float *scale, int32_t *without) {
    float own[PART], most = 0, flaw = 0;
    int8_t whole[PART];
    int32_t sum = 0;
    for (int i = 0; i < PART; i++) own[i] = x[2 * i];
#pragma omp simd reduction(max : most) reduction(+ : flaw)
    for (int i = 0; i < PART; i++) {
        most = fabsf(own[i]) > most ? fabsf(own[i]) : most;
        flaw += own[i] * 0; /* not a number where x is none, or infinite: the sums shall say so */
    }
    float by = most > LEAST && most < INFINITY ? 127 / most : 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < PART; i++) {
        float shifted = own[i] * by + 128.5f; /* of a positive number the whole part is the nearest */
        int32_t code = (int32_t)(shifted > 0 ? shifted : 0) - 128;
        whole[i] = (int8_t)code;
        sum += code;
    }
    for (int q = 0; q < 8; q++) memcpy(codes + q * ROWS * 4, whole + 4 * q, 4);
    *scale = most / 127 + flaw;
    *without = -MIDDLE * sum;
}

/* All blocks of a tile; rows beyond the last are zeros already. */
static void round_tile(const float *x, int64_t tile, int64_t m, int64_t blocks, const Rounded *r) {
    for (int64_t row = tile * ROWS; row < m && row < (tile + 1) * ROWS; row++)
        for (int64_t b = 0; b < blocks; b++)
            for (int part = 0; part < 2; part++) {
                int64_t to = (tile * blocks + b) * 2 + part, at = to * ROWS + row % ROWS;
                round_part(x + (row * blocks + b) * BLOCK + 1 - part, r->codes + to * ROWS * PART + row % ROWS * 4,
                           r->scales + at, r->without + at);
            }
}

/* -- weights ------------------------------------------------------------------------------------------------------- */

/* The levels in 8 bits, and what they are to be multiplied by: the factor up to 127 that rounds them least. */
static float round_levels(const float *levels, uint8_t *out) {
    float best = INFINITY, factor = 127;
    for (float f = 64; f <= 127; f += .25f) {
        float error = 0;
        for (int i = 0; i < 16; i++) {
            float missed = (levels[i] * f - rintf(levels[i] * f)) / f;
            error += missed * missed;
        }
        if (error < best) best = error, factor = f;
    }
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)(rintf(levels[i] * factor) + MIDDLE);
    return 1 / factor;
}

static inline __m512i two_rows(const uint8_t *first, const uint8_t *second) {
    __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)first));
    return _mm512_inserti64x4(low, _mm256_loadu_si256((const __m256i *)second), 1);
}

/* A block of 16 outputs, whose codes are stride bytes apart: (2 parts, 8 quarters, 16 of TILE outputs, 4 levels). */
static inline void unpack_block(const uint8_t *codes, int64_t stride, __m512i levels, uint8_t *out) {
    const __m512i half = _mm512_set1_epi8(15);
    __m512i a[8], b[8];
    for (int i = 0; i < 4; i++) { /* four by four words of four bytes are turned in every quarter of the vectors */
        a[i] = two_rows(codes + i * stride, codes + (i + 4) * stride);
        a[4 + i] = two_rows(codes + (i + 8) * stride, codes + (i + 12) * stride);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
        b[i + 2] = _mm512_unpacklo_epi32(a[i + 2], a[i + 3]), b[i + 3] = _mm512_unpackhi_epi32(a[i + 2], a[i + 3]);
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]), a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]), a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_i64x2(a[i], a[4 + i], 0x88);
        b[4 + i] = _mm512_shuffle_i64x2(a[i], a[4 + i], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        __m512i upper = _mm512_and_si512(_mm512_srli_epi16(b[i], 4), half);
        _mm512_store_si512(out + TILE * 4 * i, _mm512_shuffle_epi8(levels, _mm512_and_si512(b[i], half)));
        _mm512_store_si512(out + TILE * 4 * (8 + i), _mm512_shuffle_epi8(levels, upper));
    }
}

/* -- products ------------------------------------------------------------------------------------------------------ */

/* Adds `count` blocks of a tile of x, from `first` on (of all tiles' blocks), to sums (ROWS, TILE): panel (count,
   2 parts, 8 quarters, TILE outputs, 4 levels), scales (count, TILE). */
static inline void add_blocks(const Rounded *x, int64_t first, int count, const uint8_t *panel, const float *scales,
                              float *sums) {
    __m512 sum[ROWS][2];
    for (int m = 0; m < ROWS; m++)
        for (int v = 0; v < 2; v++) sum[m][v] = _mm512_load_ps(sums + m * TILE + v * LANES);
    for (int64_t p = 2 * first; p < 2 * (first + count); p++, panel += TILE * PART) {
        const int8_t *codes = x->codes + p * ROWS * PART;
        __m512i part[ROWS][2];
        for (int m = 0; m < ROWS; m++) part[m][0] = part[m][1] = _mm512_set1_epi32(x->without[p * ROWS + m]);
#pragma GCC unroll 8
        for (int q = 0; q < 8; q++) {
            __m512i one = _mm512_load_si512(panel + 128 * q), other = _mm512_load_si512(panel + 128 * q + 64);
#pragma GCC unroll 6
            for (int m = 0; m < ROWS; m++) {
                int32_t four;
                memcpy(&four, codes + (q * ROWS + m) * 4, 4);
                part[m][0] = _mm512_dpbusd_epi32(part[m][0], one, _mm512_set1_epi32(four));
                part[m][1] = _mm512_dpbusd_epi32(part[m][1], other, _mm512_set1_epi32(four));
            }
        }
        const float *at = scales + (p / 2 - first) * TILE;
        __m512 one = _mm512_load_ps(at), other = _mm512_load_ps(at + LANES);
        for (int m = 0; m < ROWS; m++) {
            __m512 times = _mm512_set1_ps(x->scales[p * ROWS + m]);
            sum[m][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[m][0]), _mm512_mul_ps(one, times), sum[m][0]);
            sum[m][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[m][1]), _mm512_mul_ps(other, times), sum[m][1]);
        }
    }
    for (int m = 0; m < ROWS; m++)
        for (int v = 0; v < 2; v++) _mm512_store_ps(sums + m * TILE + v * LANES, sum[m][v]);
}

/* Outputs [output, output + TILE) of all tiles of x; sums is room for (tiles, ROWS, TILE), scales and turned for
   (K / 64, TILE). */
static void compute_outputs(const Weights *w, const Rounded *x, int64_t tiles, int64_t output, __m512i levels,
                            float factor, float *sums, float *scales, float *turned) {
    uint8_t panel[DEPTH * TILE * BLOCK] __attribute__((aligned(64)));
    int64_t blocks = w->k / BLOCK, stride = w->k / 2;
    gama_scales(w, output, TILE, scales);
    for (int64_t n = 0; n < TILE; n++)
        for (int64_t b = 0; b < blocks; b++) turned[b * TILE + n] = scales[n * blocks + b] * factor;
    memset(sums, 0, (size_t)(tiles * ROWS * TILE) * sizeof(float));
    for (int64_t first = 0; first < blocks; first += DEPTH) {
        int count = blocks - first < DEPTH ? (int)(blocks - first) : DEPTH;
        for (int b = 0; b < count; b++)
            for (int v = 0; v < 2; v++)
                unpack_block(w->codes + (output + v * LANES) * stride + (first + b) * (BLOCK / 2), stride, levels,
                             panel + b * TILE * BLOCK + v * LANES * 4);
        for (int64_t tile = 0; tile < tiles; tile++)
            add_blocks(x, tile * blocks + first, count, panel, turned + first * TILE, sums + tile * ROWS * TILE);
    }
}

int gama_int8_outputs(void) { return TILE; }

/* out (M, N) = x (M, K) times the weights transposed; N is a multiple of gama_int8_outputs(). Returns 0, or 1 where
   there is no memory for it. */
int gama_int8_product(const Weights *w, const float *x, int64_t m, float *out, int threads) {
    int64_t blocks = w->k / BLOCK, tiles = (m + ROWS - 1) / ROWS;
    size_t codes = (size_t)(tiles * ROWS * w->k), others = ((size_t)(tiles * ROWS * blocks) * 8 + 63) / 64 * 64;
    size_t own = (size_t)(tiles * ROWS + 2 * blocks) * TILE * sizeof(float); /* of a thread */
    char *all = aligned_alloc(64, codes + 2 * others + own * (size_t)threads);
    if (!all) return 1;
    Rounded r = {(int8_t *)all, (float *)(all + codes), (int32_t *)(all + codes + others)};
    if (m % ROWS) memset(all, 0, codes + 2 * others);
    uint8_t bytes[16];
    float factor = round_levels(w->levels, bytes);
    __m512i levels = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)bytes));
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t tile = 0; tile < tiles; tile++) round_tile(x, tile, m, blocks, &r);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int part = 0; part < threads; part++) {
        float *sums = (float *)(all + codes + 2 * others + own * (size_t)part);
        float *scales = sums + tiles * ROWS * TILE, *turned = scales + blocks * TILE;
        for (int64_t n = w->n / TILE * part / threads; n < w->n / TILE * (part + 1) / threads; n++) {
            compute_outputs(w, &r, tiles, n * TILE, levels, factor, sums, scales, turned);
            for (int64_t row = 0; row < m; row++)
                memcpy(out + row * w->n + n * TILE, sums + row * TILE, TILE * sizeof(float));
        }
    }
    free(all);
    return 0;
}

#else

int gama_int8_outputs(void) { return 0; }

int gama_int8_product(const Weights *w, const float *x, int64_t m, float *out, int threads) {
    (void)w, (void)x, (void)m, (void)out, (void)threads;
    return 1;
}

#endif
