/* Products with NF4 weights as bitsandbytes stores them, for kernels.py. Nothing is repacked: a product reads the
   stored bytes once, which is what its time goes by. */

#include "nf4.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#define INLINE inline __attribute__((always_inline)) /* so that a number of rows is a constant */
#define BLOCK 64
#define HALF 32
#define GROUP 64      /* scales that are decoded together; it divides the 256 that share a scale */
#define AHEAD 8192    /* bytes: processors do not run on across pages by themselves; half the time without it */
#define SCALES 1024   /* bytes of scales, likewise */
#define MOST_ROWS 8   /* rows of x at a time: their sums stay in registers */
#define ALONE 4       /* rows of x up to which a row of weights is multiplied alone */

static uint16_t bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* -- STEP weights with as many of x, which arrange() puts in the order in which they are decoded ------------------- */

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define GAMA_KERNEL "AVX512-BF16"
#define STEP 128
typedef uint16_t X; /* bf16 */
typedef __m512 Sum;
typedef __m512i Table;
static inline void arrange(const float *x, X *out) { /* 4 i + 1, 4 i, 4 i + 3, 4 i + 2 */
    const __m512i begin = _mm512_broadcast_i64x4(
        _mm256_setr_epi32(0x40000, 0xc0008, 0x140010, 0x1c0018, 0x240020, 0x2c0028, 0x340030, 0x3c0038));
    for (int c = 0; c < 4; c += 2) {
        const __m512i one = _mm512_set1_epi16((short)(c + 1)), other = _mm512_set1_epi16((short)c);
        __m512i which = _mm512_add_epi16(begin, _mm512_inserti64x4(one, _mm512_castsi512_si256(other), 1)), found[2];
        for (int i = 0; i < 2; i++) {
            const float *at = x + 64 * i;
            __m512bh low = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(at + 16), _mm512_loadu_ps(at));
            __m512bh high = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(at + 48), _mm512_loadu_ps(at + 32));
            found[i] = _mm512_permutex2var_epi16((__m512i)low, which, (__m512i)high);
        }
        _mm512_store_si512(out + 32 * c, _mm512_shuffle_i64x2(found[0], found[1], 0x44));
        _mm512_store_si512(out + 32 * c + 32, _mm512_shuffle_i64x2(found[0], found[1], 0xee));
    }
}
static Sum none(void) { return _mm512_setzero_ps(); }
static float total(Sum s) { return _mm512_reduce_add_ps(s); }
static Table table_of(const float *levels) {
    uint16_t t[32];
    for (int i = 0; i < 32; i++) t[i] = bf16(levels[i & 15]); /* vpermw looks at five bits, a code has four */
    return _mm512_loadu_si512(t);
}
typedef struct { __m512i part[4]; } Decoded;
static inline Decoded decode(const uint8_t *codes, int both, Table t) {
    __m512i v = both ? _mm512_loadu_si512(codes) : _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)codes));
    Decoded d = {{_mm512_permutexvar_epi16(v, t), _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), t),
                  _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), t),
                  _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), t)}};
    return d;
}
typedef __m512 Times;
static inline Times times_of(const float *scales) { /* of two blocks */
    return _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(scales[0]), _mm512_set1_ps(scales[1]));
}
static inline Sum add(Sum sum, Decoded d, const X *x, Times times) {
    __m512 part = _mm512_setzero_ps();
    for (int i = 0; i < 4; i++)
        part = _mm512_dpbf16_ps(part, (__m512bh)d.part[i], (__m512bh)_mm512_load_si512(x + 32 * i));
    return _mm512_fmadd_ps(part, times, sum);
}
#elif defined(__AVX512F__)
#define GAMA_KERNEL "AVX512"
#define STEP BLOCK
typedef float X;
typedef __m512 Sum;
typedef __m512 Table;
static inline void arrange(const float *x, X *out) { /* 2 i + 1, 2 i */
    for (int i = 0; i < HALF; i++) out[i] = x[2 * i + 1], out[HALF + i] = x[2 * i];
}
static Sum none(void) { return _mm512_setzero_ps(); }
static float total(Sum s) { return _mm512_reduce_add_ps(s); }
static Table table_of(const float *levels) { return _mm512_loadu_ps(levels); }
typedef struct { __m512 part[4]; } Decoded;
static inline Decoded decode(const uint8_t *codes, int both, Table t) {
    Decoded d;
    (void)both; /* there is one */
    for (int i = 0; i < 2; i++) {
        __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(codes + 16 * i)));
        d.part[i] = _mm512_permutexvar_ps(bytes, t); /* looks at four bits */
        d.part[2 + i] = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), t);
    }
    return d;
}
typedef __m512 Times;
static inline Times times_of(const float *scales) { return _mm512_set1_ps(*scales); }
static inline Sum add(Sum sum, Decoded d, const X *x, Times times) {
    __m512 part = _mm512_mul_ps(d.part[0], _mm512_loadu_ps(x));
    for (int i = 1; i < 4; i++) part = _mm512_fmadd_ps(d.part[i], _mm512_loadu_ps(x + 16 * i), part);
    return _mm512_fmadd_ps(part, times, sum);
}
#elif defined(__AVX2__) && defined(__FMA__)
#define GAMA_KERNEL "AVX2"
#define STEP BLOCK
typedef float X;
typedef __m256 Sum;
typedef struct { __m256 lower, upper; } Table;
static inline void arrange(const float *x, X *out) { /* 2 i + 1, 2 i */
    for (int i = 0; i < HALF; i++) out[i] = x[2 * i + 1], out[HALF + i] = x[2 * i];
}
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
static inline Decoded decode(const uint8_t *codes, int both, Table t) {
    Decoded d;
    (void)both; /* there is one */
    for (int i = 0; i < 4; i++) {
        __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(codes + 8 * i)));
        d.part[i] = looked_up(bytes, t);
        d.part[4 + i] = looked_up(_mm256_srli_epi32(bytes, 4), t);
    }
    return d;
}
typedef __m256 Times;
static inline Times times_of(const float *scales) { return _mm256_set1_ps(*scales); }
static inline Sum add(Sum sum, Decoded d, const X *x, Times times) {
    __m256 part = _mm256_mul_ps(d.part[0], _mm256_loadu_ps(x));
    for (int i = 1; i < 8; i++) part = _mm256_fmadd_ps(d.part[i], _mm256_loadu_ps(x + 8 * i), part);
    return _mm256_fmadd_ps(part, times, sum);
}
#else
#error "no kernel for this processor"
#endif

/* -- scales -------------------------------------------------------------------------------------------------------- */

static inline float scale_of(const Weights *w, int64_t i) {
    return w->absmax8 ? w->code8[w->absmax8[i]] * w->absmax[i / 256] + w->offset : w->absmax[i];
}

#if defined(__AVX512VBMI__)
typedef struct { uint8_t bytes[4][256]; } Lookup; /* byte b of the value of every code */

static void look_up_in(const Weights *w, Lookup *in) {
    uint32_t bits[256];
    if (!w->absmax8) return;
    memcpy(bits, w->code8, sizeof bits);
    for (int b = 0; b < 4; b++)
        for (int i = 0; i < 256; i++) in->bytes[b][i] = (uint8_t)(bits[i] >> 8 * b);
}

static inline __m512i looked_up_bytes(__m512i codes, __mmask64 upper, const uint8_t *in) {
    __m512i a = _mm512_permutex2var_epi8(_mm512_loadu_si512(in), codes, _mm512_loadu_si512(in + 64));
    __m512i b = _mm512_permutex2var_epi8(_mm512_loadu_si512(in + 128), codes, _mm512_loadu_si512(in + 192));
    return _mm512_mask_blend_epi8(upper, a, b);
}

/* Scales [first, first + 64), as far as there are so many. */
static inline void decode_group(const Weights *w, const Lookup *in, int64_t first, int64_t end, float *out) {
    /* unpacking below turns this order */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __mmask64 there = end - first < GROUP ? (1ull << (end - first)) - 1 : ~0ull;
    __m512i codes = _mm512_permutexvar_epi32(order, _mm512_maskz_loadu_epi8(there, w->absmax8 + first));
    __m512 times = _mm512_set1_ps(w->absmax[first / 256]), plus = _mm512_set1_ps(w->offset);
    __m512i b[4], pairs[4], whole[4];
    for (int i = 0; i < 4; i++) b[i] = looked_up_bytes(codes, _mm512_movepi8_mask(codes), in->bytes[i]);
    for (int i = 0; i < 2; i++) {
        pairs[i] = _mm512_unpacklo_epi8(b[2 * i], b[2 * i + 1]);
        pairs[2 + i] = _mm512_unpackhi_epi8(b[2 * i], b[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        whole[2 * i] = _mm512_unpacklo_epi16(pairs[2 * i], pairs[2 * i + 1]);
        whole[2 * i + 1] = _mm512_unpackhi_epi16(pairs[2 * i], pairs[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) _mm512_storeu_ps(out + 16 * i, _mm512_fmadd_ps((__m512)whole[i], times, plus));
}
#else
typedef struct { int none; } Lookup;
static void look_up_in(const Weights *w, Lookup *in) { (void)w, in->none = 0; }
static inline void decode_group(const Weights *w, const Lookup *in, int64_t first, int64_t end, float *out) {
    (void)in;
    for (int64_t i = first; i < first + GROUP && i < end; i++) out[i - first] = scale_of(w, i);
}
#endif

/* The scales of a row, somewhere in room (K / 64 + 2 * GROUP); a zero follows them. */
static inline const float *scales_of(const Weights *w, const Lookup *in, int64_t row, float *room) {
    int64_t blocks = w->k / BLOCK, first = row * blocks, group = first / GROUP * GROUP;
    float *found = room;
    if (w->absmax8) {
        found += first - group;
        for (int64_t i = group; i < first + blocks; i += GROUP) {
            _mm_prefetch((const char *)(w->absmax8 + i + SCALES), _MM_HINT_T0);
            decode_group(w, in, i, w->n * blocks, room + (i - group));
        }
    } else memcpy(found, w->absmax + first, blocks * sizeof(float));
    found[blocks] = 0;
    return found;
}

void gama_scales(const Weights *w, int64_t first, int64_t count, float *out) {
    int64_t blocks = w->k / BLOCK;
    float room[blocks + 2 * GROUP];
    Lookup in;
    look_up_in(w, &in);
    for (int64_t r = 0; r < count; r++)
        memcpy(out + r * blocks, scales_of(w, &in, first + r, room), (size_t)blocks * sizeof(float));
}

/* -- a few rows of x ----------------------------------------------------------------------------------------------- */

static int64_t steps_of(int64_t k) { return (k + STEP - 1) / STEP; }

size_t gama_ready_bytes(int64_t m, int64_t k) { return (m * steps_of(k) * STEP * sizeof(X) + 63) / 64 * 64; }

void gama_make_ready(const float *x, int64_t m, int64_t k, void *out) {
    int64_t padded = steps_of(k) * STEP;
    for (int64_t r = 0; r < m; r++) {
        const float *at = x + r * k;
        X *to = (X *)out + r * padded;
        int64_t s = 0;
        for (; s + STEP <= k; s += STEP) arrange(at + s, to + s);
        if (s < k) {
            float last[STEP] = {0};
            memcpy(last, at + s, (size_t)(k - s) * sizeof(float));
            arrange(last, to + s);
        }
    }
}

/* One row of the weights with a few of x: one stream of codes is read faster than two are. */
static INLINE void product(const Weights *w, int64_t row, const float *scales, const X *x, const int rows, Table t,
                           float *out) {
    const uint8_t *codes = w->codes + row * (w->k / 2);
    int64_t steps = steps_of(w->k), whole = w->k / STEP;
    Sum sum[ALONE];
    for (int m = 0; m < rows; m++) sum[m] = none();
    for (int64_t s = 0; s < steps; s++) {
        _mm_prefetch((const char *)(codes + AHEAD + s * (STEP / 2)), _MM_HINT_T0);
        Decoded d = decode(codes + s * (STEP / 2), s < whole, t);
        Times times = times_of(scales + s * (STEP / BLOCK));
        for (int m = 0; m < rows; m++) sum[m] = add(sum[m], d, x + (m * steps + s) * STEP, times);
    }
    for (int m = 0; m < rows; m++) out[m * w->n + row] = total(sum[m]);
}

/* Two rows of the weights with more of x, which no near cache holds: they share what is read of it. */
static INLINE void products(const Weights *w, int64_t row, int64_t next, const float *scales, const float *others,
                            const X *x, const int rows, Table t, float *out) {
    const uint8_t *codes = w->codes + row * (w->k / 2), *more = w->codes + next * (w->k / 2);
    int64_t steps = steps_of(w->k), whole = w->k / STEP;
    Sum sum[MOST_ROWS], second[MOST_ROWS];
    for (int m = 0; m < rows; m++) sum[m] = second[m] = none();
    for (int64_t s = 0; s < steps; s++) {
        _mm_prefetch((const char *)(codes + AHEAD + s * (STEP / 2)), _MM_HINT_T0);
        _mm_prefetch((const char *)(more + AHEAD + s * (STEP / 2)), _MM_HINT_T0);
        Decoded one = decode(codes + s * (STEP / 2), s < whole, t), two = decode(more + s * (STEP / 2), s < whole, t);
        Times times = times_of(scales + s * (STEP / BLOCK)), other_times = times_of(others + s * (STEP / BLOCK));
        for (int m = 0; m < rows; m++) {
            const X *at = x + (m * steps + s) * STEP;
            sum[m] = add(sum[m], one, at, times);
            second[m] = add(second[m], two, at, other_times);
        }
    }
    for (int m = 0; m < rows; m++) out[m * w->n + row] = total(sum[m]), out[m * w->n + next] = total(second[m]);
}

static void one_row(const Weights *w, const Lookup *in, int64_t row, const X *x, int64_t m, Table t, float *out) {
    float room[w->k / BLOCK + 2 * GROUP];
    const float *scales = scales_of(w, in, row, room);
    switch (m) {
        case 1: product(w, row, scales, x, 1, t, out); break;
        case 2: product(w, row, scales, x, 2, t, out); break;
        case 3: product(w, row, scales, x, 3, t, out); break;
        default: product(w, row, scales, x, ALONE, t, out);
    }
}

static void two_rows(const Weights *w, const Lookup *in, int64_t row, const X *x, int64_t m, Table t, float *out) {
    int64_t next = row + 1 < w->n ? row + 1 : row; /* a last row without another is computed twice */
    float room[w->k / BLOCK + 2 * GROUP], more[w->k / BLOCK + 2 * GROUP];
    const float *scales = scales_of(w, in, row, room), *others = scales_of(w, in, next, more);
    for (; m > 0; m -= MOST_ROWS, x += MOST_ROWS * steps_of(w->k) * STEP, out += MOST_ROWS * w->n) switch (m) {
            case 1: products(w, row, next, scales, others, x, 1, t, out); break;
            case 2: products(w, row, next, scales, others, x, 2, t, out); break;
            case 3: products(w, row, next, scales, others, x, 3, t, out); break;
            case 4: products(w, row, next, scales, others, x, 4, t, out); break;
            case 5: products(w, row, next, scales, others, x, 5, t, out); break;
            case 6: products(w, row, next, scales, others, x, 6, t, out); break;
            case 7: products(w, row, next, scales, others, x, 7, t, out); break;
            default: products(w, row, next, scales, others, x, MOST_ROWS, t, out);
        }
}

void gama_multiply(const Weights *w, const void *ready, int64_t m, float *out, int threads) {
    int64_t at_once = m > ALONE ? 2 : 1;
    Table t = table_of(w->levels);
    Lookup in;
    look_up_in(w, &in);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t row = 0; row < w->n; row += at_once)
        if (at_once == 1) one_row(w, &in, row, ready, m, t, out);
        else two_rows(w, &in, row, ready, m, t, out);
}

/* out (M, N) = x (M, K) times the weights transposed; returns 0, or 1 where there is no memory for it */
int gama_nf4_product(const Weights *w, const float *x, int64_t m, float *out, int threads) {
    void *ready = aligned_alloc(64, gama_ready_bytes(m, w->k));
    if (!ready) return 1;
    gama_make_ready(x, m, w->k, ready);
    gama_multiply(w, ready, m, out, threads);
    free(ready);
    return 0;
}

/* -- weights for a matrix product ---------------------------------------------------------------------------------- */

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

const char *gama_nf4_name(void) { return GAMA_KERNEL; }
