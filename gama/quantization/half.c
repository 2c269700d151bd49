/* Products with weights in bfloat16 and x in float: the head, whose weights keep their values. */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

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
