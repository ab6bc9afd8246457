/* Models in slots, and the columns of a chunk of DuckDB's rows as their features: the first half of duckdb_function.c, which alone
 * includes it, after DuckDB's functions are declared.
 */

/* --- slots ------------------------------------------------------------------------------------------------------------- */

enum { VALUE, CODE, DAYS, YEAR, MONTH, DAY, WEEKDAY, HOUR, MINUTE, SECONDS }; /* what is made of a column */
enum { NUMBER, TEXT, DATE, TIME, TIMESTAMP };                                 /* in what form it comes */

typedef struct {
    uint32_t length;
    char start[4];
    union { char rest[8]; const char *pointer; } more;
} String; /* DuckDB's own form: up to 12 bytes within, padded with zeros, else the first four and a pointer */

typedef struct {
    int32_t form, first, parts; /* its parts are features first, first + 1, ... of the ensemble */
    const int32_t *part;        /* NULL: no tree looks at it */
    int32_t mask;               /* of the table of categories, whose size is a power of two */
    String *category;
    float *code;                /* -1: free */
    int32_t feature, flag;      /* of a linear function: its first feature, and the one that says it is missing, or -1 */
} Input;

typedef struct {
    int32_t features;
    double *weight;             /* [group][feature] */
    double *intercept;          /* [group] */
    double *mean, *inverse;     /* [feature] */
} Linear;

typedef struct {
    const Forest *forest;
    Linear *linear;
    int32_t features, groups, link, inputs;
    Input *input;
    int32_t *part;
    char *text;
} Slot;

#define MOST_SLOTS 65536
static Slot *slots[MOST_SLOTS];
static int32_t slot_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static inline const char *bytes_of(const String *text) { return text->length <= 12 ? text->start : text->more.pointer; }

static inline uint64_t mix(uint64_t a) { return (a ^ (a >> 29)) * 0x9E3779B97F4A7C15ull; }

static inline uint64_t hash_of(const String *text) {
    uint64_t head, tail;
    memcpy(&head, text, 8);
    if (text->length <= 12) {
        memcpy(&tail, (const char *)text + 8, 8);
        head = mix(head) ^ tail;
        return mix(head ^ (head >> 32));
    }
    const char *at = text->more.pointer;
    uint32_t left = text->length;
    uint64_t found = mix(head);
    for (; left >= 8; left -= 8, at += 8) {
        memcpy(&tail, at, 8);
        found = mix(found ^ tail);
    }
    tail = 0;
    memcpy(&tail, at, left);
    return mix(mix(found ^ tail));
}

static inline int same(const String *a, const String *b) {
    if (memcmp(a, b, 8)) return 0;
    return a->length <= 12 ? !memcmp(&a->more, &b->more, 8) : !memcmp(a->more.pointer, b->more.pointer, a->length);
}

static inline float code_of(const Input *input, const String *text) {
    for (uint64_t at = hash_of(text) >> 20;; at++) {
        int32_t place = (int32_t)(at & (uint64_t)input->mask);
        if (input->code[place] < 0) return NAN;
        if (same(&input->category[place], text)) return input->code[place];
    }
}

static void free_slot(Slot *slot) {
    if (!slot) return;
    for (int32_t i = 0; slot->input && i < slot->inputs; i++) { free(slot->input[i].category); free(slot->input[i].code); }
    if (slot->linear) {
        free(slot->linear->weight); free(slot->linear->intercept); free(slot->linear->mean); free(slot->linear->inverse);
    }
    free(slot->linear); free(slot->input); free(slot->part); free(slot->text); free(slot);
}

static int put_categories(Input *input, char *text, const int64_t *ends, int64_t start, int32_t count) {
    int32_t size = 8;
    while (size < count * 2) size *= 2;
    input->mask = size - 1;
    input->category = calloc(size, sizeof(String));
    input->code = malloc(size * sizeof(float));
    if (!input->category || !input->code) return 0;
    for (int32_t i = 0; i < size; i++) input->code[i] = -1;
    for (int32_t i = 0; i < count; i++) {
        String own;
        memset(&own, 0, sizeof own);
        int64_t from = i ? ends[i - 1] : start;
        own.length = (uint32_t)(ends[i] - from);
        if (own.length <= 12) {
            memcpy((char *)&own + 4, text + from, own.length);
        } else {
            memcpy(own.start, text + from, 4);
            own.more.pointer = text + from;
        }
        uint64_t at = hash_of(&own) >> 20;
        while (input->code[at & input->mask] >= 0) at++;
        input->category[at & input->mask] = own;
        input->code[at & input->mask] = (float)i;
    }
    return 1;
}

static Slot *new_slot(int32_t groups, int32_t link, int32_t inputs, const int32_t *forms, const int32_t *parts_of,
                      const int32_t *used, const int32_t *categories_of, const int32_t *parts, int32_t part_count,
                      const int64_t *ends, const char *text, int64_t text_length) {
    Slot *slot = calloc(1, sizeof *slot);
    if (!slot) return NULL;
    slot->groups = groups; slot->link = link; slot->inputs = inputs; slot->features = part_count;
    slot->input = calloc(inputs + 1, sizeof *slot->input);
    slot->part = malloc((part_count + 1) * sizeof *slot->part);
    slot->text = malloc(text_length + 8);
    int worked = slot->input && slot->part && slot->text;
    if (worked) {
        memcpy(slot->part, parts, part_count * sizeof *parts);
        memcpy(slot->text, text, text_length);
    }
    int32_t first = 0, category = 0;
    for (int32_t i = 0; worked && i < inputs; i++) {
        Input *input = &slot->input[i];
        input->form = forms[i]; input->first = first; input->parts = parts_of[i];
        input->part = used[i] ? slot->part + first : NULL;
        if (forms[i] == TEXT) {
            worked = put_categories(input, slot->text, ends + category, category ? ends[category - 1] : 0, categories_of[i]);
            category += categories_of[i];
        }
        first += parts_of[i];
    }
    if (worked) return slot;
    free_slot(slot);
    return NULL;
}

static int32_t keep(Slot *slot) {
    int32_t number = -1;
    pthread_mutex_lock(&lock);
    if (slot && slot_count < MOST_SLOTS) {
        number = slot_count;
        __atomic_store_n(&slots[number], slot, __ATOMIC_RELEASE);
        slot_count++;
    }
    pthread_mutex_unlock(&lock);
    if (number < 0) free_slot(slot);
    return number;
}

static double *copy(const double *from, size_t count) {
    double *made = malloc((count + 1) * sizeof *made);
    if (made) memcpy(made, from, count * sizeof *made);
    return made;
}

/* forms, parts_of, used, categories_of: one for each input.  parts: of all inputs, one after the other; ends: where each category
 * ends in text, likewise.  The forest must stay as long as the process.  -1: no memory, or too many. */
EXPORT int32_t sqlml_slot_of_trees(const Forest *forest, int32_t groups, int32_t link, int32_t inputs, const int32_t *forms,
                                   const int32_t *parts_of, const int32_t *used, const int32_t *categories_of,
                                   const int32_t *parts, int32_t part_count, const int64_t *ends, const char *text,
                                   int64_t text_length) {
    Slot *slot = new_slot(groups, link, inputs, forms, parts_of, used, categories_of, parts, part_count, ends, text, text_length);
    if (slot) slot->forest = forest;
    return keep(slot);
}

/* The same of linear functions of `features`: those of an input stand side by side from feature[i] on, flag[i] says that it is
 * missing (-1: nothing does). */
EXPORT int32_t sqlml_slot_of_linear(int32_t features, const double *weight, const double *intercept, const double *mean,
                                    const double *inverse, const int32_t *feature, const int32_t *flag, int32_t groups,
                                    int32_t link, int32_t inputs, const int32_t *forms, const int32_t *parts_of,
                                    const int32_t *used, const int32_t *categories_of, const int32_t *parts,
                                    int32_t part_count, const int64_t *ends, const char *text, int64_t text_length) {
    Slot *slot = new_slot(groups, link, inputs, forms, parts_of, used, categories_of, parts, part_count, ends, text, text_length);
    Linear *linear = slot ? calloc(1, sizeof *linear) : NULL;
    if (!linear) {
        free_slot(slot);
        return -1;
    }
    slot->linear = linear;
    linear->features = features;
    linear->weight = copy(weight, (size_t)groups * features);
    linear->intercept = copy(intercept, groups);
    linear->mean = copy(mean, features);
    linear->inverse = copy(inverse, features);
    if (!linear->weight || !linear->intercept || !linear->mean || !linear->inverse) {
        free_slot(slot);
        return -1;
    }
    for (int32_t i = 0; i < inputs; i++) { slot->input[i].feature = feature[i]; slot->input[i].flag = flag[i]; }
    return keep(slot);
}

/* --- columns to features ------------------------------------------------------------------------------------------------- */

#define DAY_MICROS 86400000000LL

static inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* The year, the month and the day of a number of days since 1970-01-01 (Howard Hinnant, chrono-compatible date algorithms). */
static void civil(int64_t days, int64_t *year, int32_t *month, int32_t *day) {
    int64_t z = days + 719468, era = floor_div(z, 146097);
    int64_t doe = z - era * 146097, yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *day = (int32_t)(doy - (153 * mp + 2) / 5 + 1);
    *month = (int32_t)(mp < 10 ? mp + 3 : mp - 9);
    *year = yoe + era * 400 + (*month <= 2);
}

static double part_of(int32_t part, int64_t days, int64_t micros) {
    int64_t year;
    int32_t month, day;
    switch (part) {
    case DAYS: return (double)days;
    case WEEKDAY: return (double)((days + 3) - floor_div(days + 3, 7) * 7 + 1);
    case HOUR: return (double)(micros / 3600000000LL);
    case MINUTE: return (double)(micros / 60000000LL % 60);
    default:
        civil(days, &year, &month, &day);
        return part == YEAR ? (double)year : part == MONTH ? (double)month : (double)day;
    }
}

/* Numbers of a type as doubles, and by way of WIDEST as floats, infinities as the largest of these. */
#define READER(NAME, TYPE, WIDEST)                                                                                           \
    WIDE static void doubles_of_##NAME(const TYPE *restrict from, double *restrict to, idx_t n) {                            \
        for (idx_t r = 0; r < n; r++) {                                                                                      \
            double value = (double)from[r];                                                                                  \
            value = value > FLT_MAX ? FLT_MAX : value;                                                                       \
            to[r] = value < -FLT_MAX ? -FLT_MAX : value;                                                                     \
        }                                                                                                                    \
    }                                                                                                                        \
    WIDE static void floats_of_##NAME(const TYPE *restrict from, float *restrict to, idx_t n) {                              \
        for (idx_t r = 0; r < n; r++) {                                                                                      \
            WIDEST value = (WIDEST)from[r];                                                                                  \
            value = value > FLT_MAX ? FLT_MAX : value;                                                                       \
            value = value < -FLT_MAX ? -FLT_MAX : value;                                                                     \
            to[r] = (float)value;                                                                                            \
        }                                                                                                                    \
    }

READER(int8, int8_t, float)
READER(int16, int16_t, float)
READER(int32, int32_t, double)
READER(int64, int64_t, double)
READER(uint8, uint8_t, float)
READER(uint16, uint16_t, float)
READER(uint32, uint32_t, double)
READER(uint64, uint64_t, double)
READER(float, float, float)
READER(double, double, double)

#define READ_NUMBERS(OF, TYPE, FROM, TO, N)                                                                                  \
    switch (TYPE) {                                                                                                          \
    case TYPE_TINYINT: OF##int8(FROM, TO, N); break;                                                                         \
    case TYPE_SMALLINT: OF##int16(FROM, TO, N); break;                                                                       \
    case TYPE_INTEGER: OF##int32(FROM, TO, N); break;                                                                        \
    case TYPE_BIGINT: OF##int64(FROM, TO, N); break;                                                                         \
    case TYPE_BOOLEAN: case TYPE_UTINYINT: OF##uint8(FROM, TO, N); break;                                                    \
    case TYPE_USMALLINT: OF##uint16(FROM, TO, N); break;                                                                     \
    case TYPE_UINTEGER: OF##uint32(FROM, TO, N); break;                                                                      \
    case TYPE_UBIGINT: OF##uint64(FROM, TO, N); break;                                                                       \
    case TYPE_FLOAT: OF##float(FROM, TO, N); break;                                                                          \
    default: OF##double(FROM, TO, N);                                                                                        \
    }

static void read_doubles(int32_t type, const void *from, double *to, idx_t n) { READ_NUMBERS(doubles_of_, type, from, to, n) }
static void read_floats(int32_t type, const void *from, float *to, idx_t n) { READ_NUMBERS(floats_of_, type, from, to, n) }

static double time_part(const Input *input, const void *data, int32_t part, idx_t r) {
    if (input->form == TIME) return (double)((const int64_t *)data)[r] / 1e6;
    if (input->form == DATE) {
        int32_t days = ((const int32_t *)data)[r];
        return days == INT32_MAX || days <= -INT32_MAX ? NAN : part_of(part, days, 0);
    }
    int64_t stamp = ((const int64_t *)data)[r], days = floor_div(stamp, DAY_MICROS);
    return stamp == INT64_MAX || stamp <= -INT64_MAX ? NAN : part_of(part, days, stamp - days * DAY_MICROS);
}

static void read_time(const Input *input, const void *data, double *to, int32_t part, idx_t n) {
    for (idx_t r = 0; r < n; r++) to[r] = time_part(input, data, part, r);
}

/* Each row that is absent: the bits of `valid` that are 0. */
#define EACH_ABSENT(VALID, N, ROW, ACTION)                                                                                   \
    for (idx_t first_ = 0; (VALID) && first_ < (N); first_ += 64) {                                                          \
        uint64_t absent_ = ~(VALID)[first_ >> 6];                                                                            \
        if ((N) - first_ < 64) absent_ &= (1ull << ((N) - first_)) - 1;                                                      \
        for (; absent_; absent_ &= absent_ - 1) { const idx_t ROW = first_ + __builtin_ctzll(absent_); ACTION; }             \
    }

static void blank(double *to, const uint64_t *valid, idx_t n) { EACH_ABSENT(valid, n, r, to[r] = NAN) }

static int32_t type_of(Handle vector) {
    Handle type = duckdb.vector_type(vector);
    const int32_t found = duckdb.type_id(type);
    duckdb.destroy_logical_type(&type);
    return found;
}

/* Whether an input reads columns of a type: anybody can call the function. */
static int reads_type(const Input *input, int32_t type) {
    switch (input->form) {
    case NUMBER: return type >= TYPE_BOOLEAN && type <= TYPE_DOUBLE;
    case TEXT: return type == TYPE_VARCHAR;
    case DATE: return type == TYPE_DATE;
    case TIME: return type == TYPE_TIME;
    default: return type == TYPE_TIMESTAMP || type == TYPE_TIMESTAMP_TZ;
    }
}

/* 0: the column is of another type. */
static int read_input(const Input *input, Handle vector, float *const *column, idx_t n) {
    const int32_t type = type_of(vector);
    if (!reads_type(input, type)) return 0;
    const void *data = duckdb.vector_data(vector);
    const uint64_t *valid = duckdb.vector_validity(vector);
    for (int32_t p = 0; p < input->parts; p++) {
        float *to = column[input->first + p];
        if (input->form == TEXT) {
            const String *text = data;
            for (idx_t r = 0; r < n; r++) to[r] = !valid || (valid[r >> 6] >> (r & 63)) & 1 ? code_of(input, &text[r]) : NAN;
            continue;
        }
        if (input->form == NUMBER) read_floats(type, data, to, n);
        else for (idx_t r = 0; r < n; r++) to[r] = (float)time_part(input, data, input->part[p], r);
        EACH_ABSENT(valid, n, r, to[r] = NAN)
    }
    return 1;
}
