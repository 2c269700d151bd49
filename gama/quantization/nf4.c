/* Products with NF4 weights as bitsandbytes stores them, for kernels.py.

   Weights are (N, K) in row order, two codes a byte, the earlier one in the upper half; K is a multiple of 64, and 64
   weights share a scale. Scales are stored in 8 bits themselves (double quantization), 256 of them to a scale of their
   own, or as they are. Nothing is repacked: a product reads the stored bytes once, which is what its time goes by. */

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64
#define HALF 32
#define AHEAD 8192  /* bytes: processors do not run on across pages by themselves; half the time without it */
#define MOST_ROWS 8 /* rows of x at a time: their sums stay in registers */

typedef struct {
    const uint8_t *codes;   /* (N, K / 2) */
    const uint8_t *absmax8; /* (N * K / 64), or NULL where absmax holds the scales themselves */
    const float *absmax;    /* (N * K / 64 / 256, rounded up), or (N * K / 64) */
    const float *code8;     /* (256) values of absmax8 */
    const float *levels;    /* (16) values of the codes */
    float offset;           /* added to every scale that absmax8 gives */
    int64_t n, k;
} Weights;

/* Scale i of the weights. Where a block needs it, not a row ahead: its loads then wait for nothing. */
static inline float scale_of(const Weights *w, int64_t i) {
    return w->absmax8 ? w->code8[w->absmax8[i]] * w->absmax[i >> 8] + w->offset : w->absmax[i];
}

static uint16_t bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* -- one block of weights with one block of x: x holds the 32 that meet lower halves, then the 32 of upper halves ---- */

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define GAMA_KERNEL "AVX512-BF16"
typedef uint16_t X; /* bf16 */
typedef __m512 Sum;
typedef __m512i Table;
static X as_x(float value) { return bf16(value); }
static Sum none(void) { return _mm512_setzero_ps(); }
static float total(Sum s) { return _mm512_reduce_add_ps(s); }
static Table table_of(const float *levels) {
    uint16_t t[32];
    for (int i = 0; i < 32; i++) t[i] = bf16(levels[i & 15]); /* vpermw looks at five bits, a code has four */
    return _mm512_loadu_si512(t);
}
typedef struct { __m512i low, high; } Decoded;
static inline Decoded decode(const uint8_t *codes, Table t) {
    __m512i bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)codes));
    Decoded d = {_mm512_permutexvar_epi16(bytes, t), _mm512_permutexvar_epi16(_mm512_srli_epi16(bytes, 4), t)};
    return d;
}
static inline Sum add_block(Sum sum, Decoded d, const X *x, float scale) {
    __m512 part = _mm512_dpbf16_ps(_mm512_setzero_ps(), (__m512bh)d.low, (__m512bh)_mm512_loadu_si512(x));
    part = _mm512_dpbf16_ps(part, (__m512bh)d.high, (__m512bh)_mm512_loadu_si512(x + HALF));
    return _mm512_fmadd_ps(part, _mm512_set1_ps(scale), sum);
}
#elif defined(__AVX512F__)
#define GAMA_KERNEL "AVX512"
typedef float X;
typedef __m512 Sum;
typedef __m512 Table;
static X as_x(float value) { return value; }
static Sum none(void) { return _mm512_setzero_ps(); }
static float total(Sum s) { return _mm512_reduce_add_ps(s); }
static Table table_of(const float *levels) { return _mm512_loadu_ps(levels); }
typedef struct { __m512 part[4]; } Decoded;
static inline Decoded decode(const uint8_t *codes, Table t) {
    Decoded d;
    for (int i = 0; i < 2; i++) {
        __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(codes + 16 * i)));
        d.part[i] = _mm512_permutexvar_ps(bytes, t); /* looks at four bits */
        d.part[2 + i] = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), t);
    }
    return d;
}
static inline Sum add_block(Sum sum, Decoded d, const X *x, float scale) {
    __m512 part = _mm512_mul_ps(d.part[0], _mm512_loadu_ps(x));
    for (int i = 1; i < 4; i++) part = _mm512_fmadd_ps(d.part[i], _mm512_loadu_ps(x + 16 * i), part);
    return _mm512_fmadd_ps(part, _mm512_set1_ps(scale), sum);
}
#elif defined(__AVX2__) && defined(__FMA__)
#define GAMA_KERNEL "AVX2"
typedef float X;
typedef __m256 Sum;
typedef struct { __m256 lower, upper; } Table;
static X as_x(float value) { return value; }
static Sum none(void) { return _mm256_setzero_ps(); }
static float total(Sum s) {
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}
static Table table_of(const float *levels) {
    Table t = {_mm256_loadu_ps(levels), _mm256_loadu_ps(levels + 8)};
    return t;
}
typedef struct { __m256 part[8]; } Decoded;
static inline __m256 looked_up(__m256i index, Table t) { /* three bits each, and the fourth chooses the table */
    __m256 choice = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(t.lower, index), _mm256_permutevar8x32_ps(t.upper, index), choice);
}
static inline Decoded decode(const uint8_t *codes, Table t) {
    Decoded d;
    for (int i = 0; i < 4; i++) {
        __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(codes + 8 * i)));
        d.part[i] = looked_up(bytes, t);
        d.part[4 + i] = looked_up(_mm256_srli_epi32(bytes, 4), t);
    }
    return d;
}
static inline Sum add_block(Sum sum, Decoded d, const X *x, float scale) {
    __m256 part = _mm256_mul_ps(d.part[0], _mm256_loadu_ps(x));
    for (int i = 1; i < 8; i++) part = _mm256_fmadd_ps(d.part[i], _mm256_loadu_ps(x + 8 * i), part);
    return _mm256_fmadd_ps(part, _mm256_set1_ps(scale), sum);
}
#else
#error "no kernel for this processor"
#endif

/* -- a few rows of x ------------------------------------------------------------------------------------------------ */

/* Two rows of weights at once: they share what is read of x, and their sums do not wait for each other. */
static inline __attribute__((always_inline)) void product(const Weights *w, int64_t row, const X *x, const int rows,
                                                          Table t, float *out) {
    int64_t blocks = w->k / BLOCK, next = row + 1 < w->n; /* a last row without another is computed twice */
    const uint8_t *codes = w->codes + row * (w->k / 2), *other = codes + next * (w->k / 2);
    int64_t scale = row * blocks, others = scale + next * blocks;
    Sum sum[MOST_ROWS], second[MOST_ROWS];
    for (int m = 0; m < rows; m++) sum[m] = second[m] = none();
    for (int64_t b = 0; b < blocks; b++) {
        _mm_prefetch((const char *)(codes + AHEAD + b * HALF), _MM_HINT_T0);
        _mm_prefetch((const char *)(other + AHEAD + b * HALF), _MM_HINT_T0);
        Decoded one = decode(codes + b * HALF, t), two = decode(other + b * HALF, t);
        float times = scale_of(w, scale + b), other_times = scale_of(w, others + b);
        for (int m = 0; m < rows; m++) {
            const X *at = x + m * w->k + b * BLOCK;
            sum[m] = add_block(sum[m], one, at, times);
            second[m] = add_block(second[m], two, at, other_times);
        }
    }
    for (int m = 0; m < rows; m++) {
        out[m * w->n + row] = total(sum[m]);
        out[m * w->n + row + next] = total(second[m]);
    }
}

/* x in the order in which a block is decoded: odd places first, they lie in the lower halves */
static void arrange(const float *x, int64_t count, X *out) {
    for (int64_t b = 0; b < count / BLOCK; b++)
        for (int i = 0; i < HALF; i++) {
            out[b * BLOCK + i] = as_x(x[b * BLOCK + 2 * i + 1]);
            out[b * BLOCK + HALF + i] = as_x(x[b * BLOCK + 2 * i]);
        }
}

/* out (M, N) = x (M, K) times the weights transposed; returns 0, or 1 where there is no memory for it */
int gama_nf4_product(const Weights *w, const float *x, int64_t m, float *out, int threads) {
    X *ready = aligned_alloc(64, (size_t)(m * w->k * sizeof(X) + 63) / 64 * 64);
    if (!ready) return 1;
    arrange(x, m * w->k, ready);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t row = 0; row < w->n; row += 2) {
        Table t = table_of(w->levels);
        for (int64_t first = 0; first < m; first += MOST_ROWS) {
            const X *at = ready + first * w->k;
            float *to = out + first * w->n;
            switch (m - first < MOST_ROWS ? m - first : MOST_ROWS) {
                case 1: product(w, row, at, 1, t, to); break;
                case 2: product(w, row, at, 2, t, to); break;
                case 3: product(w, row, at, 3, t, to); break;
                case 4: product(w, row, at, 4, t, to); break;
                case 5: product(w, row, at, 5, t, to); break;
                case 6: product(w, row, at, 6, t, to); break;
                case 7: product(w, row, at, 7, t, to); break;
                default: product(w, row, at, MOST_ROWS, t, to);
            }
        }
    }
    free(ready);
    return 0;
}

/* -- weights for a matrix product ----------------------------------------------------------------------------------- */

static inline void unpacked_bf16(const uint8_t *codes, const float *levels, float scale, uint16_t *out) {
    uint16_t t[32];
    for (int i = 0; i < 16; i++) t[i] = t[16 + i] = bf16(levels[i] * scale);
#if defined(__AVX512BW__)
    __m512i table = _mm512_loadu_si512(t);
    for (int i = 0; i < 2; i++) {
        __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(codes + 16 * i)));
        __m512i index = _mm512_or_si512(_mm512_srli_epi32(bytes, 4), _mm512_slli_epi32(bytes, 16));
        _mm512_storeu_si512(out + 32 * i, _mm512_permutexvar_epi16(index, table));
    }
#else
    for (int i = 0; i < HALF; i++) {
        out[2 * i] = t[codes[i] >> 4];
        out[2 * i + 1] = t[codes[i] & 15];
    }
#endif
}

static inline void unpacked_float(const uint8_t *codes, const float *levels, float scale, float *out) {
    float t[16];
    for (int i = 0; i < 16; i++) t[i] = levels[i] * scale;
    for (int i = 0; i < HALF; i++) {
        out[2 * i] = t[codes[i] >> 4];
        out[2 * i + 1] = t[codes[i] & 15];
    }
}

/* rows [first, first + count) of the weights as (count, K) of bf16 or float */
void gama_nf4_unpack(const Weights *w, int64_t first, int64_t count, int half, void *out, int threads) {
    int64_t blocks = w->k / BLOCK;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < count; r++) {
        const uint8_t *codes = w->codes + (first + r) * (w->k / 2);
        for (int64_t b = 0; b < blocks; b++) {
            int64_t at = r * w->k + b * BLOCK;
            float scale = scale_of(w, (first + r) * blocks + b);
            if (half) unpacked_bf16(codes + b * HALF, w->levels, scale, (uint16_t *)out + at);
            else unpacked_float(codes + b * HALF, w->levels, scale, (float *)out + at);
        }
    }
}

/* -- weights in bf16 with x in float ---------------------------------------------------------------------------------- */

static inline float wide(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* out (M, N) = x (M, K) times the weights (N, K) transposed, four rows of weights at a time; N is a multiple of 4 */
void gama_bf16_product(const uint16_t *w, int64_t n, int64_t k, const float *x, int64_t m, float *out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t row = 0; row < n; row += 4)
        for (int64_t r = 0; r < m; r++) {
            const uint16_t *a = w + row * k, *b = a + k, *c = b + k, *d = c + k;
            const float *at = x + r * k;
            float s = 0, t = 0, u = 0, v = 0;
            for (int64_t first = 0; first < k; first += 256) {
                int64_t end = first + 256 < k ? first + 256 : k;
                for (int64_t i = first; i < end; i += 32) { /* of the rows after these */
                    _mm_prefetch((const char *)(a + 4 * k + i), _MM_HINT_T0);
                    _mm_prefetch((const char *)(b + 4 * k + i), _MM_HINT_T0);
                    _mm_prefetch((const char *)(c + 4 * k + i), _MM_HINT_T0);
                    _mm_prefetch((const char *)(d + 4 * k + i), _MM_HINT_T0);
                }
#pragma omp simd reduction(+ : s, t, u, v)
                for (int64_t i = first; i < end; i++) {
                    s += wide(a[i]) * at[i];
                    t += wide(b[i]) * at[i];
                    u += wide(c[i]) * at[i];
                    v += wide(d[i]) * at[i];
                }
            }
            float *to = out + r * n + row;
            to[0] = s, to[1] = t, to[2] = u, to[3] = v;
        }
}

const char *gama_nf4_name(void) { return GAMA_KERNEL; }
