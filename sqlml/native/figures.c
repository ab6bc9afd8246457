/* What is told of a column of numbers: ends, mean, spread, and the middle. */

#include <math.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define BLOCK 2048 /* values that stay in the nearest cache while they are passed over twice */
#define LINE 256   /* values that are looked at before those wanted are written */
#define LANES 16   /* sums side by side */

#if defined(__x86_64__) && defined(__linux__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef WIDE
#define WIDE
#endif

/* Of the finite numbers among n: how many, the ends, the mean, and the sum of the squared distances from it. */
typedef struct {
    int64_t known, absent, infinite; /* absent: NaN */
    double low, high, mean, squares;
} Figures;

/* Two parts' figures as those of both (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
   variances", 1979). */
static void merge(Figures *all, int64_t known, double low, double high, double mean, double squares) {
    if (all->known) {
        const double apart = mean - all->mean, part = (double)known / (double)(all->known + known);
        all->squares += squares + apart * apart * (double)all->known * part;
        all->mean += apart * part;
    } else {
        all->squares = squares;
        all->mean = mean;
    }
    all->known += known;
    if (low < all->low) all->low = low;
    if (high > all->high) all->high = high;
}

static double total(const double *lane) {
    double sum = 0;
    for (int i = 0; i < LANES; i++) sum += lane[i];
    return sum;
}

/* The same code for both types.  A block whose sum is not finite has NaN or infinities: its finite numbers go to a block of their
   own. */
#define FIGURES_OF(NAME, TYPE)                                                                                               \
    WIDE static double NAME##_sum(const TYPE *value, int64_t n, double *low, double *high) {                                 \
        double sum[LANES] = {0};                                                                                             \
        TYPE least[LANES], most[LANES];                                                                                      \
        for (int i = 0; i < LANES; i++) least[i] = most[i] = value[0];                                                       \
        int64_t r = 0;                                                                                                       \
        for (; r + LANES <= n; r += LANES)                                                                                   \
            for (int i = 0; i < LANES; i++) {                                                                                \
                const TYPE x = value[r + i];                                                                                 \
                sum[i] += (double)x;                                                                                         \
                least[i] = x < least[i] ? x : least[i];                                                                      \
                most[i] = x > most[i] ? x : most[i];                                                                         \
            }                                                                                                                \
        for (int i = 0; r < n; r++, i++) {                                                                                   \
            const TYPE x = value[r];                                                                                         \
            sum[i] += (double)x;                                                                                             \
            least[i] = x < least[i] ? x : least[i];                                                                          \
            most[i] = x > most[i] ? x : most[i];                                                                             \
        }                                                                                                                    \
        for (int i = 0; i < LANES; i++) {                                                                                    \
            *low = (double)least[i] < *low ? (double)least[i] : *low;                                                        \
            *high = (double)most[i] > *high ? (double)most[i] : *high;                                                       \
        }                                                                                                                    \
        return total(sum);                                                                                                   \
    }                                                                                                                        \
    WIDE static double NAME##_squares(const TYPE *value, int64_t n, double mean) {                                           \
        double sum[LANES] = {0};                                                                                             \
        int64_t r = 0;                                                                                                       \
        for (; r + LANES <= n; r += LANES)                                                                                   \
            for (int i = 0; i < LANES; i++) sum[i] += ((double)value[r + i] - mean) * ((double)value[r + i] - mean);         \
        for (int i = 0; r < n; r++, i++) sum[i] += ((double)value[r] - mean) * ((double)value[r] - mean);                    \
        return total(sum);                                                                                                   \
    }                                                                                                                        \
    static void NAME##_block(const TYPE *value, int64_t n, Figures *all) {                                                   \
        double low = INFINITY, high = -INFINITY;                                                                             \
        const double mean = NAME##_sum(value, n, &low, &high) / (double)n;                                                   \
        merge(all, n, low, high, mean, NAME##_squares(value, n, mean));                                                      \
    }                                                                                                                        \
    EXPORT void sqlml_figures_##NAME(const TYPE *value, int64_t n, Figures *all) {                                           \
        for (; n > 0; value += BLOCK, n -= BLOCK) {                                                                          \
            const int64_t rows = n < BLOCK ? n : BLOCK;                                                                      \
            double low = INFINITY, high = -INFINITY;                                                                         \
            const double sum = NAME##_sum(value, rows, &low, &high);                                                         \
            if (isfinite(sum)) {                                                                                             \
                const double mean = sum / (double)rows;                                                                      \
                merge(all, rows, low, high, mean, NAME##_squares(value, rows, mean));                                        \
                continue;                                                                                                    \
            }                                                                                                                \
            TYPE finite[BLOCK];                                                                                              \
            int64_t known = 0;                                                                                               \
            for (int64_t r = 0; r < rows; r++) {                                                                             \
                if (isfinite(value[r])) finite[known++] = value[r];                                                          \
                else if (isnan(value[r])) all->absent++;                                                                     \
                else all->infinite++;                                                                                        \
            }                                                                                                                \
            if (known) NAME##_block(finite, known, all);                                                                     \
        }                                                                                                                    \
    }                                                                                                                        \
    /* Write the values from `low` to `high` to `inside`, which has room for n; `below` grows by the finite ones under them. */\
    WIDE EXPORT int64_t sqlml_between_##NAME(const TYPE *value, int64_t n, TYPE low, TYPE high, TYPE *inside,                \
                                             int64_t *below) {                                                               \
        int64_t found = 0;                                                                                                   \
        for (int64_t first = 0; first < n; first += LINE) {                                                                  \
            union { uint8_t flag[LINE]; uint64_t word[LINE / 8]; } is = {{0}};                                               \
            const int rows = n - first < LINE ? (int)(n - first) : LINE;                                                     \
            const TYPE *own = value + first;                                                                                 \
            int32_t under = 0;                                                                                               \
            for (int r = 0; r < rows; r++) {                                                                                 \
                is.flag[r] = (own[r] >= low) & (own[r] <= high);                                                             \
                under += (own[r] < low) & (own[r] > -(TYPE)INFINITY);                                                        \
            }                                                                                                                \
            *below += under;                                                                                                 \
            for (int w = 0; w < LINE / 8; w++)                                                                               \
                for (int r = 8 * w; is.word[w] && r < 8 * w + 8 && r < rows; r++) {                                          \
                    inside[found] = own[r];                                                                                  \
                    found += is.flag[r];                                                                                     \
                }                                                                                                            \
        }                                                                                                                    \
        return found;                                                                                                        \
    }

FIGURES_OF(float, float)
FIGURES_OF(double, double)
