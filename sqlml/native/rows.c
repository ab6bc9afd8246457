/* Rows of PostgreSQL's protocol out of Arrow's buffers: numbers and moments as text, each with its length before it.
 *
 * Floats and doubles have the fewest digits that are the same number, by Raffaello Giulietti's method (The Schubfach way to render doubles, 2021);
 * its powers of ten, 128 bits each, are given from outside.
 *
 * Nothing is checked that the caller can know: the buffers are as long as they say, the room is enough.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { BYTES = 0, INT16 = 1, INT32 = 2, INT64 = 3, DOUBLE = 4, DATE = 5, MICROSECONDS = 6, BIG16 = 7, BIG32 = 8, BIG64 = 9, BOOL = 10, FLOAT = 11 };

typedef struct {
    int64_t kind;
    int64_t offset;          /* of its first row in all its buffers */
    const uint8_t *validity; /* a bit each, NULL where none is missing */
    const void *values;
    const int32_t *ends; /* of BYTES: where each begins and ends in the values */
} Column;

typedef struct {
    uint64_t high, low;
} Power;

#define FIRST_POWER (-292)

static const char PAIRS[] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

static inline uint8_t *pair(uint8_t *out, uint32_t value) {
    memcpy(out, PAIRS + 2 * value, 2);
    return out + 2;
}

static inline void big16(uint8_t *out, uint16_t value) {
    value = __builtin_bswap16(value);
    memcpy(out, &value, 2);
}

static inline void big32(uint8_t *out, uint32_t value) {
    value = __builtin_bswap32(value);
    memcpy(out, &value, 4);
}

static inline void big64(uint8_t *out, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(out, &value, 8);
}

/* --- whole numbers ------------------------------------------------------------------------------------------------------ */

static inline int digits_of(uint64_t value) {
    static const uint64_t TENS[] = {
        0ull, 10ull, 100ull, 1000ull, 10000ull, 100000ull, 1000000ull, 10000000ull, 100000000ull, 1000000000ull, 10000000000ull,
        100000000000ull, 1000000000000ull, 10000000000000ull, 100000000000000ull, 1000000000000000ull, 10000000000000000ull,
        100000000000000000ull, 1000000000000000000ull, 10000000000000000000ull,
    };
    int guess = ((64 - __builtin_clzll(value | 1)) * 1233) >> 12;
    return guess + (value >= TENS[guess]);
}

/* The digits, exactly so many. */
static inline void put_digits(uint8_t *out, uint64_t value, int count) {
    while (count > 2) {
        uint64_t next = value / 100;
        count -= 2;
        memcpy(out + count, PAIRS + 2 * (value - next * 100), 2);
        value = next;
    }
    if (count == 2)
        memcpy(out, PAIRS + 2 * value, 2);
    else if (count == 1)
        out[0] = (uint8_t)('0' + value);
}

static inline uint8_t *put_integer(uint8_t *out, int64_t value) {
    uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    if (value < 0)
        *out++ = '-';
    int count = digits_of(size);
    put_digits(out, size, count);
    return out + count;
}

/* --- doubles ------------------------------------------------------------------------------------------------------------ */

static inline uint64_t round_to_odd(Power g, uint64_t c) {
    unsigned __int128 x = (unsigned __int128)g.low * c, y = (unsigned __int128)g.high * c;
    y += (uint64_t)(x >> 64);
    return (uint64_t)(y >> 64) | ((uint64_t)y > 1);
}

/* c * 2^q, which is positive, as digits * 10^exponent; is_closer: the number below is half as far away as the one above. */
static inline uint64_t shortest(uint64_t c, int q, int is_closer, const Power *powers, int *exponent) {
    if (q <= 0 && q > -53 && (c & ((1ull << -q) - 1)) == 0) {
        *exponent = 0;
        return c >> -q;
    }
    int is_odd = c & 1;
    uint64_t left = 4 * c - 2 + is_closer, middle = 4 * c, right = 4 * c + 2;
    int k = (q * 1262611 - (is_closer ? 524031 : 0)) >> 22;
    int h = q + ((-k * 1741647) >> 19) + 1;
    Power g = powers[-k - FIRST_POWER];
    uint64_t lower = round_to_odd(g, left << h) + is_odd, value = round_to_odd(g, middle << h);
    uint64_t upper = round_to_odd(g, right << h) - is_odd, s = value / 4;
    if (s >= 10) {
        uint64_t tens = s / 10;
        int below = lower <= 40 * tens, above = 40 * tens + 40 <= upper;
        if (below != above) {
            *exponent = k + 1;
            return tens + above;
        }
    }
    int below = lower <= 4 * s, above = 4 * s + 4 <= upper;
    *exponent = k;
    if (below != above)
        return s + above;
    uint64_t half = 4 * s + 2;
    return s + (value > half || (value == half && (s & 1)));
}

/* As PostgreSQL writes a number: with an exponent below 1e-4 and from the power `large` of ten on. */
static inline uint8_t *put_decimal(uint8_t *out, uint64_t digits, int exponent, int large) {
    while (digits % 10 == 0) {
        digits /= 10;
        exponent++;
    }
    int count = digits_of(digits), first = count + exponent - 1; /* the power of ten of the first digit */
    if (first < -4 || first >= large) {
        put_digits(out + 1, digits, count);
        out[0] = out[1];
        out[1] = '.';
        out += count > 1 ? count + 1 : 1;
        *out++ = 'e';
        *out++ = first < 0 ? '-' : '+';
        int size = first < 0 ? -first : first;
        if (size >= 100) {
            *out++ = (uint8_t)('0' + size / 100);
            size %= 100;
        }
        return pair(out, (uint32_t)size);
    }
    if (exponent >= 0) {
        put_digits(out, digits, count);
        memset(out + count, '0', (size_t)exponent);
        return out + count + exponent;
    }
    if (first < 0) {
        memcpy(out, "0.0000", 6);
        out += 1 - first;
        put_digits(out, digits, count);
        return out + count;
    }
    put_digits(out + 1, digits, count);
    memmove(out, out + 1, (size_t)first + 1);
    out[first + 1] = '.';
    return out + count + 1;
}

/* A number of so many bits of fraction; its own bits begin with its sign. */
static inline uint8_t *put_number(uint8_t *out, uint64_t bits, int fraction_bits, int exponent_bits, int large, const Power *powers) {
    uint64_t fraction = bits & ((1ull << fraction_bits) - 1);
    int most = (1 << exponent_bits) - 1, biased = (int)(bits >> fraction_bits) & most;
    int is_negative = bits >> (fraction_bits + exponent_bits) & 1;
    if (biased == most) {
        const char *word = fraction ? "NaN" : is_negative ? "-Infinity" : "Infinity";
        size_t size = strlen(word);
        memcpy(out, word, size);
        return out + size;
    }
    if (is_negative)
        *out++ = '-';
    if (!biased && !fraction) {
        *out++ = '0';
        return out;
    }
    int exponent, q = (biased ? biased : 1) - most / 2 - fraction_bits;
    uint64_t c = fraction | (biased ? 1ull << fraction_bits : 0);
    uint64_t digits = shortest(c, q, !fraction && biased > 1, powers, &exponent);
    return put_decimal(out, digits, exponent, large);
}

static inline uint8_t *put_double(uint8_t *out, double number, const Power *powers) {
    uint64_t bits;
    memcpy(&bits, &number, 8);
    return put_number(out, bits, 52, 11, 15, powers);
}

static inline uint8_t *put_float(uint8_t *out, float number, const Power *powers) {
    uint32_t bits;
    memcpy(&bits, &number, 4);
    return put_number(out, bits, 23, 8, 6, powers);
}

/* --- days and moments --------------------------------------------------------------------------------------------------- */

#define FIRST_DAY (-719162) /* 0001-01-01 */
#define LAST_DAY 2932896    /* 9999-12-31 */
#define DAY 86400000000ll

/* Hinnant, civil_from_days. */
static inline uint8_t *put_date(uint8_t *out, int64_t day) {
    uint32_t shifted = (uint32_t)(day + 719468), era = shifted / 146097, of_era = shifted % 146097;
    uint32_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint32_t of_year = of_era - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
    uint32_t of_month = of_year - (153 * month + 2) / 5 + 1;
    month = month < 10 ? month + 3 : month - 9;
    year += era * 400 + (month <= 2);
    out = pair(pair(out, year / 100), year % 100);
    *out++ = '-';
    out = pair(out, month);
    *out++ = '-';
    return pair(out, of_month);
}

static inline uint8_t *put_moment(uint8_t *out, int64_t moment) {
    int64_t day = moment / DAY, of_day = moment % DAY;
    if (of_day < 0) {
        of_day += DAY;
        day--;
    }
    uint32_t seconds = (uint32_t)(of_day / 1000000), micros = (uint32_t)(of_day % 1000000);
    out = put_date(out, day);
    *out++ = ' ';
    out = pair(out, seconds / 3600);
    *out++ = ':';
    out = pair(out, seconds / 60 % 60);
    *out++ = ':';
    out = pair(out, seconds % 60);
    if (micros) {
        *out++ = '.';
        put_digits(out, micros, 6);
        out += 6;
        while (out[-1] == '0')
            out--;
    }
    return out;
}

/* --- values ------------------------------------------------------------------------------------------------------------- */

static inline int is_null(const Column *column, int64_t at) {
    return column->validity && !(column->validity[at >> 3] >> (at & 7) & 1);
}

/* One value; NULL where it is a moment or a day that is not of the years 1 to 9999. */
static inline uint8_t *put_value(uint8_t *out, const Column *column, int64_t at, const Power *powers) {
    switch (column->kind) {
    case BYTES: {
        size_t size = (size_t)(column->ends[at + 1] - column->ends[at]);
        memcpy(out, (const uint8_t *)column->values + column->ends[at], size);
        return out + size;
    }
    case INT16:
        return put_integer(out, ((const int16_t *)column->values)[at]);
    case INT32:
        return put_integer(out, ((const int32_t *)column->values)[at]);
    case INT64:
        return put_integer(out, ((const int64_t *)column->values)[at]);
    case DOUBLE:
        return put_double(out, ((const double *)column->values)[at], powers);
    case FLOAT:
        return put_float(out, ((const float *)column->values)[at], powers);
    case DATE: {
        int32_t day = ((const int32_t *)column->values)[at];
        return day < FIRST_DAY || day > LAST_DAY ? NULL : put_date(out, day);
    }
    case MICROSECONDS: {
        int64_t moment = ((const int64_t *)column->values)[at];
        return moment < FIRST_DAY * DAY || moment >= (LAST_DAY + 1) * DAY ? NULL : put_moment(out, moment);
    }
    case BIG16:
        big16(out, ((const uint16_t *)column->values)[at]);
        return out + 2;
    case BIG32:
        big32(out, ((const uint32_t *)column->values)[at]);
        return out + 4;
    case BIG64:
        big64(out, ((const uint64_t *)column->values)[at]);
        return out + 8;
    default: /* BOOL */
        *out = ((const uint8_t *)column->values)[at >> 3] >> (at & 7) & 1 ? 't' : 'f';
        return out + 1;
    }
}

/* --- rows with the length of each value before it ----------------------------------------------------------------------- */

/* Messages of one letter: DataRow, or a row of a binary COPY.  How many bytes they are; where a value is none that can be written,
 * minus its column's number, counted from 1. */
EXPORT int64_t sqlml_rows(char letter, int64_t rows, int32_t columns, const Column *column, const Power *powers, uint8_t *out) {
    uint8_t *at = out;
    for (int64_t row = 0; row < rows; row++) {
        uint8_t *begin = at;
        *at = (uint8_t)letter;
        big16(at + 5, (uint16_t)columns);
        at += 7;
        for (int32_t i = 0; i < columns; i++) {
            uint8_t *end;
            if (is_null(column + i, column[i].offset + row)) {
                big32(at, 0xFFFFFFFFu);
                at += 4;
                continue;
            }
            end = put_value(at + 4, column + i, column[i].offset + row, powers);
            if (!end)
                return -1 - i;
            big32(at, (uint32_t)(end - at - 4));
            at = end;
        }
        big32(begin + 1, (uint32_t)(at - begin - 1));
    }
    return at - out;
}

/* --- rows as lines ------------------------------------------------------------------------------------------------------ */

typedef struct {
    int32_t delimiter, quote, escape; /* no quote: the text format */
    int32_t null_size;
    const uint8_t *null; /* what stands for NULL */
    uint8_t special[256]; /* text: what stands behind a backslash for a byte, 0 for itself; CSV: whether a value with it is quoted */
} Line;

static inline uint8_t *put_escaped(uint8_t *out, const uint8_t *value, int64_t size, const Line *line) {
    for (int64_t i = 0; i < size; i++) {
        uint8_t letter = line->special[value[i]];
        if (letter)
            *out++ = '\\';
        *out++ = letter ? letter : value[i];
    }
    return out;
}

static inline uint8_t *put_quoted(uint8_t *out, const uint8_t *value, int64_t size, const Line *line) {
    int quoted = size == line->null_size && !memcmp(value, line->null, (size_t)size);
    quoted |= size == 2 && value[0] == '\\' && value[1] == '.';
    for (int64_t i = 0; i < size && !quoted; i++)
        quoted = line->special[value[i]];
    if (!quoted) {
        memcpy(out, value, (size_t)size);
        return out + size;
    }
    *out++ = (uint8_t)line->quote;
    for (int64_t i = 0; i < size; i++) {
        if (value[i] == line->quote || value[i] == line->escape)
            *out++ = (uint8_t)line->escape;
        *out++ = value[i];
    }
    *out++ = (uint8_t)line->quote;
    return out;
}

/* CopyData messages of text or CSV, one for each row.  Numbers and moments are written as they are: nothing in them may be special.
 * What comes back is as of sqlml_rows. */
EXPORT int64_t sqlml_lines(int64_t rows, int32_t columns, const Column *column, const Power *powers, const Line *line, uint8_t *out) {
    uint8_t *at = out;
    for (int64_t row = 0; row < rows; row++) {
        uint8_t *begin = at;
        *at = 'd';
        at += 5;
        for (int32_t i = 0; i < columns; i++) {
            int64_t place = column[i].offset + row;
            if (i)
                *at++ = (uint8_t)line->delimiter;
            if (is_null(column + i, place)) {
                memcpy(at, line->null, (size_t)line->null_size);
                at += line->null_size;
            } else if (column[i].kind == BYTES) {
                const uint8_t *value = (const uint8_t *)column[i].values + column[i].ends[place];
                int64_t size = column[i].ends[place + 1] - column[i].ends[place];
                at = line->quote ? put_quoted(at, value, size, line) : put_escaped(at, value, size, line);
            } else {
                at = put_value(at, column + i, place, powers);
                if (!at)
                    return -1 - i;
            }
        }
        *at++ = '\n';
        big32(begin + 1, (uint32_t)(at - begin - 1));
    }
    return at - out;
}
