/* One token through a layer of a LLaMA in one call: between the products there is little to compute, and much to call.

   Everything but the products and the keys is in float, as transformers computes it; the products are nf4.c's. */

#include "nf4.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const Weights *q, *k, *v, *o, *gate, *up, *down;
    const float *before, *after;           /* (N) of the RMSNorms before attention and before the feed-forward part */
    float before_epsilon, after_epsilon;   /* theirs */
    float scaling;                         /* of scores */
    int64_t heads, shared, width;          /* heads of queries; of keys and values; their width, which is even */
} Layer;

/* exp(x) to 1e-7 of it for x <= 88, and without branches, so that compilers make vectors of it */
static inline float exp_of(float x) {
    const float rounder = 12582912.f; /* 1.5 * 2^23: what is added to it is rounded to a whole number */
    x = x < -87.f ? -87.f : x;
    float whole = (x * 1.44269504f + rounder) - rounder;
    float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float sum = 1.f / 720;
    sum = sum * rest + 1.f / 120;
    sum = sum * rest + 1.f / 24;
    sum = sum * rest + 1.f / 6;
    sum = sum * rest + .5f;
    sum = sum * rest + 1.f;
    sum = sum * rest + 1.f;
    int32_t bits = ((int32_t)whole + 127) << 23; /* 2^whole */
    float power;
    memcpy(&power, &bits, 4);
    return sum * power;
}

static void normed(const float *x, const float *weight, float epsilon, int64_t n, float *out) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    float by = 1 / sqrtf(sum / (float)n + epsilon);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = weight[i] * (x[i] * by);
}

static void add_to(float *x, const float *more, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] += more[i];
}

/* gate = silu(gate) * up */
static void gated(float *gate, const float *up, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) gate[i] = gate[i] / (1 + exp_of(gate[i] < -87.f ? 87.f : -gate[i])) * up[i];
}

/* Rotary positions: cos and sin are (width). */
static void turned(const float *x, const float *cos, const float *sin, int64_t width, float *out) {
    int64_t half = width / 2;
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        float one = x[i], other = x[half + i];
        out[i] = one * cos[i] - other * sin[i];
        out[half + i] = other * cos[half + i] + one * sin[half + i];
    }
}

static float dot(const float *a, const float *b, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* One head: query (width), keys and values (count, width), out (width); scores is room for count. */
static void attended(const float *query, const float *keys, const float *values, int64_t count, int64_t width,
                     float scaling, float *scores, float *out) {
    float most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < count; i++) {
        scores[i] = dot(query, keys + i * width, width) * scaling;
        most = scores[i] > most ? scores[i] : most;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += scores[i] = exp_of(scores[i] - most);
    memset(out, 0, (size_t)width * sizeof(float));
    for (int64_t i = 0; i < count; i++) {
        const float *value = values + i * width, share = scores[i] / sum;
#pragma omp simd
        for (int64_t j = 0; j < width; j++) out[j] += share * value[j];
    }
}

typedef struct { /* numbers of one call */
    void *ready;
    float *normed, *query, *key, *attended, *gate, *up, *scores;
} Room;

static void *room_for(const Layer *l, int64_t positions, Room *room) {
    int64_t wide = l->heads * l->width, deep = l->gate->n, most = l->q->k;
    most = wide > most ? wide : most;
    most = deep > most ? deep : most;
    size_t ready = gama_ready_bytes(1, most);
    int64_t floats = l->q->k + 2 * wide + l->shared * l->width + 2 * deep + l->heads * positions;
    char *all = aligned_alloc(64, ready + ((size_t)floats * sizeof(float) + 63) / 64 * 64);
    if (!all) return NULL;
    room->ready = all;
    room->normed = (float *)(all + ready);
    room->query = room->normed + l->q->k;
    room->attended = room->query + wide;
    room->key = room->attended + wide;
    room->gate = room->key + l->shared * l->width;
    room->up = room->gate + deep;
    room->scores = room->up + deep;
    return all;
}

/* x (N), in place, at position `at` of keys and values (shared, positions, width), where its own are written; cos and
   sin are (width). Returns 0, or 1 where there is no memory for it. */
int gama_llama_layer(const Layer *l, float *x, const float *cos, const float *sin, float *keys, float *values,
                     int64_t positions, int64_t at, int threads) {
    Room r;
    void *all = room_for(l, at + 1, &r);
    if (!all) return 1;
    int64_t n = l->q->k, width = l->width, group = l->heads / l->shared;
    normed(x, l->before, l->before_epsilon, n, r.normed);
    gama_make_ready(r.normed, 1, n, r.ready);
    gama_multiply(l->q, r.ready, 1, r.attended, threads);
    for (int64_t h = 0; h < l->heads; h++) turned(r.attended + h * width, cos, sin, width, r.query + h * width);
    gama_multiply(l->k, r.ready, 1, r.key, threads);
    for (int64_t h = 0; h < l->shared; h++)
        turned(r.key + h * width, cos, sin, width, keys + (h * positions + at) * width);
    gama_multiply(l->v, r.ready, 1, r.key, threads);
    for (int64_t h = 0; h < l->shared; h++)
        memcpy(values + (h * positions + at) * width, r.key + h * width, (size_t)width * sizeof(float));
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t h = 0; h < l->heads; h++) {
        int64_t from = h / group * positions * width;
        attended(r.query + h * width, keys + from, values + from, at + 1, width, l->scaling, r.scores + h * (at + 1),
                 r.attended + h * width);
    }
    gama_make_ready(r.attended, 1, l->o->k, r.ready);
    gama_multiply(l->o, r.ready, 1, r.normed, threads);
    add_to(x, r.normed, n);
    normed(x, l->after, l->after_epsilon, n, r.normed);
    gama_make_ready(r.normed, 1, n, r.ready);
    gama_multiply(l->gate, r.ready, 1, r.gate, threads);
    gama_multiply(l->up, r.ready, 1, r.up, threads);
    gated(r.gate, r.up, l->gate->n);
    gama_make_ready(r.gate, 1, l->down->k, r.ready);
    gama_multiply(l->down, r.ready, 1, r.normed, threads);
    add_to(x, r.normed, n);
    free(all);
    return 0;
}
