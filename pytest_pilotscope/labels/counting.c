/* Sums of counts of 64 bits by code. Nothing wraps around: what does not fit is left to the caller. */
#include <stdint.h>

/*
 * Add to `sums`, by the first of `keys + 1` columns of codes, the product of the weights that the other columns look up, for each row
 * without a negative code (NULL). `sizes` are those of `sums` and of the weights. Return the number of rows done: it stops at the first one
 * whose sum needs more than 63 bits, or whose code is too large.
 */
static inline int64_t add(int64_t *sums, int64_t rows, int64_t keys, const int32_t *const *codes, const int64_t *const *weights, const int64_t *sizes)
{
    const int32_t *out = codes[0];
    const uint64_t size = (uint64_t)sizes[0];
    int64_t row, key;

    for (row = 0; row < rows; row++) {
        int64_t added = 1;

        for (key = 1; key <= keys; key++) {
            int32_t place = codes[key][row];

            if (place < 0)
                goto next;
            if (place >= sizes[key] || __builtin_mul_overflow(added, weights[key - 1][place], &added))
                return row;
        }
        if ((uint64_t)(int64_t)out[row] >= size) {
            if (out[row] < 0)
                goto next;
            return row;
        }
        if (added > INT64_MAX - sums[out[row]])
            return row;
        sums[out[row]] += added;
    next:;
    }
    return row;
}

/* The compiler unrolls the loop over the keys where their number is constant. */
int64_t labels_add(int64_t *sums, int64_t rows, int64_t keys, const int32_t *const *codes, const int64_t *const *weights, const int64_t *sizes)
{
    switch (keys) {
    case 0:
        return add(sums, rows, 0, codes, weights, sizes);
    case 1:
        return add(sums, rows, 1, codes, weights, sizes);
    default:
        return add(sums, rows, keys, codes, weights, sizes);
    }
}
