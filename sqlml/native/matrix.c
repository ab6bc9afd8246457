/* Columns side by side as rows of a float32 matrix, each row in a place of its own. */

#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MOST_AHEAD 512 /* bytes of a row that are fetched while the tile is filled: its place is anywhere in memory */
#define TILE 64 /* rows that are turned round at a time: they lie in the nearest cache */

/* The nearest float32; what is beyond them, infinities too, is the largest; NaN stays. */
static inline float to_float(double value) {
    return value > FLT_MAX ? FLT_MAX : value < -FLT_MAX ? -FLT_MAX : (float)value;
}

/* ``columns``: k of ``m`` values each, of doubles where ``wide``, else floats.  Row i goes to row ``places[i]`` of ``out``
   (·, k), nowhere where that is negative.  0; -1 without memory. */
EXPORT int32_t sqlml_matrix_rows(int32_t k, const void *const *columns, const uint8_t *wide, int64_t m, const int64_t *places,
                                 float *out) {
    float *tile = malloc(sizeof(float) * TILE * (size_t)k);
    if (tile == NULL && k > 0) return -1;
    for (int64_t first = 0; first < m; first += TILE) {
        int64_t rows = m - first < TILE ? m - first : TILE;
        for (int64_t i = 0; i < rows; i++) {
            if (places[first + i] < 0) continue;
            const char *row = (const char *)(out + places[first + i] * k);
            for (int32_t at = 0; at < 4 * k && at < MOST_AHEAD; at += 64) __builtin_prefetch(row + at, 1);
        }
        for (int32_t j = 0; j < k; j++) {
            if (wide[j]) {
                const double *values = (const double *)columns[j] + first;
                for (int64_t i = 0; i < rows; i++) tile[i * k + j] = to_float(values[i]);
            } else {
                const float *values = (const float *)columns[j] + first;
                for (int64_t i = 0; i < rows; i++) {
                    float value = values[i];
                    tile[i * k + j] = value > FLT_MAX ? FLT_MAX : value < -FLT_MAX ? -FLT_MAX : value;
                }
            }
        }
        for (int64_t i = 0; i < rows; i++)
            if (places[first + i] >= 0) memcpy(out + places[first + i] * k, tile + i * k, sizeof(float) * (size_t)k);
    }
    free(tile);
    return 0;
}
