/*
 * forward.c: the network of mscn for the sets of relations of one query; forward.py calls it and has the same in NumPy.
 *
 * A query has a handful of elements, so the time is that of reading the weights. The first layer adds up the weights of the few features
 * that an element has. The other layers read each weight once for all elements. Every row of floats is padded to a multiple of LANES.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define AT_ONCE 4 /* elements that share one reading of the weights */
#define SETS 3

/* At any address of a float. */
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#if defined(__x86_64__) && defined(__linux__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "fma", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#define INLINE static inline __attribute__((always_inline)) /* so that each processor has its own */

/* The first layer has a row of weights for each feature; the others are cut into LANES outputs, with all inputs of each cut together. */
typedef struct Encoder {
    const float *first, *first_bias, *second, *second_bias, *merge;
} Encoder;

typedef struct Network {
    int64_t hidden, tables, rows, predicate_width;
    Encoder table, predicate;
    const float *whole;    /* for each table the first layer's sums of an element with all sample rows */
    const int64_t *sizes;  /* the sample rows of each table */
    const float *bias, *output;
    double output_bias, lowest, span; /* the logarithms of rows are from lowest to lowest + span */
} Network;

typedef struct Query {
    int64_t subplans, known, filtered, predicates;
    const int64_t *masks;     /* of the subplans */
    const int64_t *needs;     /* the relations of each element: known ones, filtered tables, predicates */
    const int64_t *sets;      /* the set of each element */
    const float *encodings;   /* of the known elements */
    const int64_t *tables;    /* of the filtered tables */
    const uint8_t *bits;      /* (filtered, rows): the sample rows that pass */
    const float *features;    /* (predicates, predicate_width) */
    double *rows;             /* of the subplans */
} Query;

INLINE void add(float *sums, const float *values, float factor, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        sums[i] += factor * values[i];
}

static int64_t in_groups(int64_t elements) {
    return (elements + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
}

INLINE void rectify(float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        values[i] = values[i] < 0 ? 0 : values[i]; /* NaN stays */
}

/* (elements, hidden) to (elements, hidden); the number of elements is a multiple of AT_ONCE. */
INLINE void layer(const float *weights, const float *bias, const float *in, float *out, int64_t elements, int64_t hidden) {
    for (int64_t cut = 0; cut < hidden; cut += LANES, weights += LANES * hidden) {
        for (int64_t element = 0; element < elements; element += AT_ONCE) {
            const float *from = in + element * hidden;
            float *to = out + element * hidden + cut;
            Lanes start = {0};
            Lanes a, b, c, d;

            if (bias)
                start = *(const Lanes *)(bias + cut);
            a = b = c = d = start;
            for (int64_t input = 0; input < hidden; input++) {
                Lanes weight = *(const Lanes *)(weights + input * LANES);

                a += weight * from[input];
                b += weight * from[hidden + input];
                c += weight * from[2 * hidden + input];
                d += weight * from[3 * hidden + input];
            }
            *(Lanes *)to = a;
            *(Lanes *)(to + hidden) = b;
            *(Lanes *)(to + 2 * hidden) = c;
            *(Lanes *)(to + 3 * hidden) = d;
        }
    }
}

/* The first layer for the sample rows of a table that pass, from whichever are fewer: they, or the others. */
INLINE void first_of_table(const Network *net, int64_t table, const uint8_t *bits, float *sums) {
    int64_t hidden = net->hidden, size = net->sizes[table], passing = 0;
    const float *rows = net->table.first + net->tables * hidden;
    int fewer;

    for (int64_t row = 0; row < size; row++)
        passing += bits[row];
    fewer = 2 * passing <= size;
    memcpy(sums, fewer ? net->table.first_bias : net->whole + table * hidden, hidden * sizeof(float));
    if (fewer)
        add(sums, net->table.first + table * hidden, 1, hidden);
    for (int64_t row = 0; row < size; row++)
        if (bits[row] == fewer)
            add(sums, rows + row * hidden, fewer ? 1 : -1, hidden);
}

INLINE void encode(const Encoder *encoder, float *first, float *second, int64_t elements,
                                                         int64_t hidden, float *out) {
    rectify(first, elements * hidden);
    layer(encoder->second, encoder->second_bias, first, second, elements, hidden);
    rectify(second, elements * hidden);
    layer(encoder->merge, NULL, second, out, elements, hidden);
}

/* Average each set of a subplan, and apply the output layers up to the logistic function. `sums` is a row of the workspace. */
INLINE double output(const Network *net, const Query *query, int64_t mask, const float *fresh,
                                                          float *sums) {
    int64_t hidden = net->hidden, elements = query->known + query->filtered + query->predicates;
    int64_t sizes[SETS] = {0};
    float lanes[LANES] = {0};
    double total = net->output_bias;

    for (int64_t e = 0; e < elements; e++)
        sizes[query->sets[e]] += (mask & query->needs[e]) == query->needs[e];
    memcpy(sums, net->bias, hidden * sizeof(float));
    for (int64_t e = 0; e < elements; e++) {
        const float *encoded = e < query->known ? query->encodings + e * hidden : fresh + (e - query->known) * hidden;

        if ((mask & query->needs[e]) == query->needs[e])
            add(sums, encoded, 1.0f / (float)sizes[query->sets[e]], hidden);
    }
    rectify(sums, hidden);
    for (int64_t i = 0; i < hidden; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += sums[i + lane] * net->output[i + lane];
    for (int lane = 0; lane < LANES; lane++)
        total += lanes[lane];
    return total;
}

/* Return 0, or -1 without memory. */
FOR_EACH_PROCESSOR int mscn_rows(const Network *net, const Query *query) {
    int64_t hidden = net->hidden, most = query->filtered > query->predicates ? query->filtered : query->predicates;
    int64_t padded = in_groups(most);
    float *first = calloc(3 * padded + query->filtered + 1, hidden * sizeof(float)), *second, *fresh, *sums;

    if (first == NULL)
        return -1;
    second = first + padded * hidden;
    fresh = second + padded * hidden;
    sums = fresh + (query->filtered + padded) * hidden;
    for (int64_t e = 0; e < query->filtered; e++)
        first_of_table(net, query->tables[e], query->bits + e * net->rows, first + e * hidden);
    encode(&net->table, first, second, in_groups(query->filtered), hidden, fresh);
    for (int64_t e = 0; e < query->predicates; e++) {
        memcpy(first + e * hidden, net->predicate.first_bias, hidden * sizeof(float));
        for (int64_t f = 0; f < net->predicate_width; f++)
            if (query->features[e * net->predicate_width + f] != 0)
                add(first + e * hidden, net->predicate.first + f * hidden, query->features[e * net->predicate_width + f], hidden);
    }
    encode(&net->predicate, first, second, in_groups(query->predicates), hidden, fresh + query->filtered * hidden);
    for (int64_t subplan = 0; subplan < query->subplans; subplan++)
        query->rows[subplan] = exp(net->lowest + net->span / (1 + exp(-output(net, query, query->masks[subplan], fresh, sums))));
    free(first);
    return 0;
}
