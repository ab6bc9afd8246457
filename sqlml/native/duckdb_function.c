/* Models as vectorised functions inside DuckDB: __sqlml_trees(slot, output, column, ...) -> FLOAT for ensembles of trees, and
 * __sqlml_linear(slot, output, column, ...) -> DOUBLE for linear functions of standardised columns.
 *
 * DuckDB's own functions (its C API, version 1) are given by address, so that nothing is linked; the function is registered as an
 * extension that is part of the process, and comes into every database that is opened afterwards.  A slot holds a model and how
 * its columns are read; slots are never taken away, for a running query may look into them.
 *
 * Columns arrive as they are where they are numbers of up to 64 bits, BOOLEAN, VARCHAR, DATE, TIME or TIMESTAMP (WITH TIME ZONE), as
 * the slot's inputs want them; what else there is the caller casts, which it is told when a query is bound.  NULL is NaN.
 */

#include <math.h>
#include <float.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "forest.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define WIDE __attribute__((target_clones("avx2", "default")))
#endif
#endif
#ifndef WIDE
#define WIDE
#endif

/* --- DuckDB's C API ---------------------------------------------------------------------------------------------------- */

typedef void *Handle;
typedef uint64_t idx_t;
enum {
    TYPE_BOOLEAN = 1, TYPE_TINYINT, TYPE_SMALLINT, TYPE_INTEGER, TYPE_BIGINT, TYPE_UTINYINT, TYPE_USMALLINT, TYPE_UINTEGER,
    TYPE_UBIGINT, TYPE_FLOAT, TYPE_DOUBLE, TYPE_TIMESTAMP, TYPE_DATE, TYPE_TIME, TYPE_VARCHAR = 17,
    TYPE_TIMESTAMP_TZ = 31, TYPE_ANY = 34
};

typedef void Function(Handle info, Handle input, Handle output);
typedef void Bind(Handle info);
typedef struct Description {
    uint32_t version;
    void (*set_error)(struct Description *, const char *);
    void *internal;
    const char *name, *extension_version, *api_version;
    void (*cpp)(void), (*v1)(void), (*v2)(void);
} Description;
typedef struct {
    void (*set_error)(Handle info, const char *error);
    Handle *(*get_database)(Handle info);
    const void *(*get_api)(Handle info, const char *version);
} Access;

/* In the order in which Python gives their addresses. */
static struct {
    int32_t (*register_static_extension)(int32_t (*describe)(Description *));
    int32_t (*connect)(Handle database, Handle *connection);
    void (*disconnect)(Handle *connection);
    Handle (*create_scalar_function)(void);
    void (*destroy_scalar_function)(Handle *function);
    void (*set_name)(Handle function, const char *name);
    void (*add_parameter)(Handle function, Handle type);
    void (*set_varargs)(Handle function, Handle type);
    void (*set_return_type)(Handle function, Handle type);
    void (*set_special_handling)(Handle function);
    void (*set_function)(Handle function, Function *body);
    void (*set_bind)(Handle function, Bind *bind);
    int32_t (*register_scalar_function)(Handle connection, Handle function);
    void (*set_error)(Handle info, const char *error);
    Handle (*create_logical_type)(int32_t type);
    void (*destroy_logical_type)(Handle *type);
    int32_t (*type_id)(Handle type);
    idx_t (*chunk_size)(Handle chunk);
    idx_t (*chunk_columns)(Handle chunk);
    Handle (*chunk_vector)(Handle chunk, idx_t column);
    void *(*vector_data)(Handle vector);
    uint64_t *(*vector_validity)(Handle vector);
    Handle (*vector_type)(Handle vector);
    idx_t (*bound_arguments)(Handle info);
    Handle (*bound_argument)(Handle info, idx_t argument);
    void (*set_bind_error)(Handle info, const char *error);
    void (*bind_context)(Handle info, Handle *context);
    void (*destroy_context)(Handle *context);
    _Bool (*is_foldable)(Handle expression);
    Handle (*fold)(Handle context, Handle expression, Handle *value);
    Handle (*expression_type)(Handle expression);
    void (*destroy_expression)(Handle *expression);
    _Bool (*is_null)(Handle value);
    int32_t (*int32_of)(Handle value);
    void (*destroy_value)(Handle *value);
    void (*destroy_error)(Handle *error);
} duckdb;

#include "duckdb_slots.h"

/* --- the functions -------------------------------------------------------------------------------------------------------- */

typedef struct {
    size_t size;
    float *values;
} Sheet;

/* A thread's own until it ends: `now` is what a call works in, `before` has the chunk that was scored last, its features and scores. */
typedef struct {
    Sheet now, before;
    const Slot *slot; /* of the chunk before */
    idx_t n;
} Room;

static pthread_key_t own_room;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_room(void *room) {
    free(((Room *)room)->now.values);
    free(((Room *)room)->before.values);
    free(room);
}

static void make_key(void) { pthread_key_create(&own_room, free_room); }

/* The thread's room, with place for so many values; NULL: no memory. */
static Room *room_for(size_t size) {
    Room *room = pthread_getspecific(own_room);
    if (!room) {
        room = calloc(1, sizeof *room);
        if (!room) return NULL;
        pthread_setspecific(own_room, room);
    }
    if (room->now.size < size) {
        free(room->now.values);
        room->now.values = malloc(size * sizeof(float));
        room->now.size = room->now.values ? size : 0;
    }
    return room->now.values ? room : NULL;
}

static inline size_t lines_of(idx_t n) { return (n + 31) / 32 * 32; }

/* Whether a row of the chunk is one of the chunk before, by every feature that the trees may look at. */
static inline int is_row(const Slot *slot, const float *before, size_t lines, idx_t was, float *const *column, idx_t r) {
    for (int32_t i = 0; i < slot->inputs; i++) {
        const Input *input = &slot->input[i];
        for (int32_t f = input->first; input->part && f < input->first + input->parts; f++)
            if (memcmp(before + f * lines + was, column[f] + r, sizeof(float))) return 0;
    }
    return 1;
}

/* Where the rows of a chunk stand among those scored last, in their order; 0: not all are there.  A query that says the same call
 * twice, to filter and to show, has its rows scored once: DuckDB takes each chunk through all of it before the next. */
static int are_known(const Room *room, const Slot *slot, float *const *column, idx_t n, uint32_t *place) {
    if (room->slot != slot || n > room->n) return 0;
    const size_t lines = lines_of(room->n);
    for (idx_t r = 0, was = 0; r < n; r++, was++) {
        while (was < room->n && !is_row(slot, room->before.values, lines, was, column, r)) was++;
        if (was >= room->n) return 0;
        place[r] = (uint32_t)was;
    }
    return 1;
}

static void choose(const float *scores, int32_t groups, int32_t output, float *out, idx_t n) {
    if (groups == 1) {
        memcpy(out, scores, n * sizeof *out);
        return;
    }
    for (idx_t r = 0; r < n; r++, scores += groups) {
        int32_t best = output < 0 ? 0 : output;
        if (output < 0) for (int32_t g = 1; g < groups; g++) best = scores[g] > scores[best] ? g : best;
        out[r] = output < 0 ? (float)best : scores[best];
    }
}

static inline const Slot *slot_at(int32_t number) {
    return number < 0 || number >= MOST_SLOTS ? NULL : __atomic_load_n(&slots[number], __ATOMIC_ACQUIRE);
}

#define STRANGER "the function was called by somebody else than sqlml"
#define UNFIT "an argument of the model's function is to be cast" /* which contracts/targets.py knows again */

/* The slot that a call means, where it has as many columns as the slot has inputs; else an error is set. */
static const Slot *slot_of(Handle info, Handle input, int linear, int32_t *wanted) {
    const idx_t columns = duckdb.chunk_columns(input);
    if (columns < 2) {
        duckdb.set_error(info, "the function takes a slot, an output and columns");
        return NULL;
    }
    int32_t number = *(int32_t *)duckdb.vector_data(duckdb.chunk_vector(input, 0));
    *wanted = *(int32_t *)duckdb.vector_data(duckdb.chunk_vector(input, 1));
    const Slot *slot = slot_at(number);
    if (slot && !slot->linear == !linear && columns == (idx_t)slot->inputs + 2 && *wanted < slot->groups) return slot;
    duckdb.set_error(info, STRANGER);
    return NULL;
}

/* The number that a call's first argument is; -1: it is no number, and what follows is said when rows come. */
static int32_t bound_slot(Handle info) {
    Handle context = NULL, value = NULL, number = duckdb.bound_argument(info, 0);
    int32_t found = -1;
    if (number && duckdb.is_foldable(number)) {
        duckdb.bind_context(info, &context);
        Handle error = duckdb.fold(context, number, &value);
        if (!error && value && !duckdb.is_null(value)) found = duckdb.int32_of(value);
        if (error) duckdb.destroy_error(&error);
        if (value) duckdb.destroy_value(&value);
        duckdb.destroy_context(&context);
    }
    if (number) duckdb.destroy_expression(&number);
    return found;
}

/* Say so where a column has a type that its input does not read. */
static void check_types(Handle info) {
    const idx_t arguments = duckdb.bound_arguments(info);
    const Slot *slot = arguments > 2 ? slot_at(bound_slot(info)) : NULL;
    if (!slot || arguments != (idx_t)slot->inputs + 2) return;
    for (int32_t i = 0; i < slot->inputs; i++) {
        if (!slot->input[i].part) continue;
        Handle column = duckdb.bound_argument(info, i + 2), type = duckdb.expression_type(column);
        const int reads = reads_type(&slot->input[i], duckdb.type_id(type));
        duckdb.destroy_logical_type(&type);
        duckdb.destroy_expression(&column);
        if (reads) continue;
        duckdb.set_bind_error(info, UNFIT);
        return;
    }
}

static int64_t scored;

/* How many rows trees have scored for DuckDB in this process. */
EXPORT int64_t sqlml_rows_scored(void) { return __atomic_load_n(&scored, __ATOMIC_RELAXED); }

/* Score a chunk whose features stand in `now`, which is the chunk before from then on; 0: no memory. */
static int score(Room *room, const Slot *slot, float *const *column, idx_t n) {
    float *scores = room->now.values + slot->features * lines_of(n);
    if (!sqlml_forest_columns(slot->forest, (const float *const *)column, (int64_t)n, scores)) return 0;
    if (slot->link) sqlml_link(slot->link, scores, (int64_t)n, slot->groups);
    const Sheet now = room->now;
    room->now = room->before;
    room->before = now;
    room->slot = slot;
    room->n = n;
    __atomic_add_fetch(&scored, (int64_t)n, __ATOMIC_RELAXED);
    return 1;
}

static void trees(Handle info, Handle input, Handle output) {
    const idx_t n = duckdb.chunk_size(input);
    int32_t wanted;
    const Slot *slot = n ? slot_of(info, input, 0, &wanted) : NULL;
    if (!slot) return;
    Room *room = room_for((slot->features + slot->groups) * lines_of(n));
    float **column = malloc((slot->features + 1) * sizeof *column);
    uint32_t *place = malloc(n * sizeof *place);
    if (!room || !column || !place) {
        duckdb.set_error(info, "no memory to compute with");
    } else {
        int reads = 1;
        for (int32_t c = 0; c < slot->features; c++) column[c] = room->now.values + c * lines_of(n);
        for (int32_t i = 0; reads && i < slot->inputs; i++)
            if (slot->input[i].part) reads = read_input(&slot->input[i], duckdb.chunk_vector(input, i + 2), column, n);
        const int known = reads && are_known(room, slot, column, n, place);
        if (!reads) {
            duckdb.set_error(info, UNFIT);
        } else if (!known && !score(room, slot, column, n)) {
            duckdb.set_error(info, "no memory to compute with");
        } else {
            const float *scores = room->before.values + slot->features * lines_of(room->n);
            float *out = duckdb.vector_data(output);
            if (known) for (idx_t r = 0; r < n; r++) choose(scores + (size_t)place[r] * slot->groups, slot->groups, wanted, out + r, 1);
            else choose(scores, slot->groups, wanted, out, n);
        }
    }
    free(column);
    free(place);
}

WIDE static void add_part(const double *restrict value, double *restrict sum, double weight, double mean, double inverse, idx_t n) {
    for (idx_t r = 0; r < n; r++) {
        double x = (double)(float)((value[r] - mean) * inverse); /* the features are float32 */
        sum[r] += value[r] == value[r] ? weight * x : 0.0;
    }
}

/* 0: the column is of another type. */
static int add_input(const Slot *slot, const Input *input, Handle vector, double *value, double *sums, size_t lines, idx_t n) {
    const int32_t type = type_of(vector);
    if (!reads_type(input, type)) return 0;
    const Linear *linear = slot->linear;
    const void *data = duckdb.vector_data(vector);
    const uint64_t *valid = duckdb.vector_validity(vector);
    for (int32_t p = 0; p < input->parts; p++) {
        if (input->form == TEXT) {
            const String *text = data;
            for (idx_t r = 0; r < n; r++) value[r] = !valid || (valid[r >> 6] >> (r & 63)) & 1 ? code_of(input, &text[r]) : NAN;
        } else {
            if (input->form == NUMBER) read_doubles(type, data, value, n);
            else read_time(input, data, value, input->part[p], n);
            blank(value, valid, n);
        }
        for (int32_t g = 0; g < slot->groups; g++) {
            const double *weight = linear->weight + (size_t)g * linear->features;
            double *sum = sums + g * lines;
            const int32_t f = input->feature + p;
            if (input->form != TEXT) add_part(value, sum, weight[f], linear->mean[f], linear->inverse[f], n);
            else for (idx_t r = 0; r < n; r++) sum[r] += value[r] == value[r] ? weight[f + (int32_t)value[r]] : 0.0;
            if (p == 0 && input->flag >= 0)
                for (idx_t r = 0; r < n; r++) sum[r] += value[r] == value[r] ? 0.0 : weight[input->flag];
        }
    }
    return 1;
}

enum { LOGISTIC = 1, SOFTMAX = 2 };

static void answer(const Slot *slot, const double *sums, size_t lines, int32_t wanted, double *out, idx_t n) {
    if (slot->groups == 1) {
        for (idx_t r = 0; r < n; r++) out[r] = slot->link == LOGISTIC ? 1.0 / (1.0 + exp(-sums[r])) : sums[r];
        return;
    }
    for (idx_t r = 0; r < n; r++) {
        int32_t best = 0;
        for (int32_t g = 1; g < slot->groups; g++) best = sums[g * lines + r] > sums[best * lines + r] ? g : best;
        double most = sums[best * lines + r], total = 0;
        for (int32_t g = 0; wanted >= 0 && g < slot->groups; g++) total += exp(sums[g * lines + r] - most);
        out[r] = wanted < 0 ? best : exp(sums[wanted * lines + r] - most) / total;
    }
}

static void linear(Handle info, Handle input, Handle output) {
    const idx_t n = duckdb.chunk_size(input);
    int32_t wanted;
    const Slot *slot = n ? slot_of(info, input, 1, &wanted) : NULL;
    if (!slot) return;
    const size_t lines = lines_of(n);
    Room *room = room_for((size_t)(slot->groups + 1) * lines * 2);
    if (!room) {
        duckdb.set_error(info, "no memory to compute with");
        return;
    }
    double *sums = (double *)room->now.values;
    for (int32_t g = 0; g < slot->groups; g++)
        for (idx_t r = 0; r < n; r++) sums[g * lines + r] = slot->linear->intercept[g];
    for (int32_t i = 0; i < slot->inputs; i++) {
        if (!slot->input[i].part) continue;
        if (add_input(slot, &slot->input[i], duckdb.chunk_vector(input, i + 2), sums + slot->groups * lines, sums, lines, n)) continue;
        duckdb.set_error(info, UNFIT);
        return;
    }
    answer(slot, sums, lines, wanted, duckdb.vector_data(output), n);
}

/* --- into every database that is opened ------------------------------------------------------------------------------------ */

static int add_function(Handle connection, const char *name, int32_t result, Function *body) {
    Handle whole = duckdb.create_logical_type(TYPE_INTEGER), any = duckdb.create_logical_type(TYPE_ANY);
    Handle real = duckdb.create_logical_type(result), function = duckdb.create_scalar_function();
    duckdb.set_name(function, name);
    duckdb.add_parameter(function, whole);
    duckdb.add_parameter(function, whole);
    duckdb.set_varargs(function, any);
    duckdb.set_return_type(function, real);
    duckdb.set_special_handling(function);
    duckdb.set_function(function, body);
    duckdb.set_bind(function, check_types);
    int worked = !duckdb.register_scalar_function(connection, function);
    duckdb.destroy_scalar_function(&function);
    duckdb.destroy_logical_type(&whole);
    duckdb.destroy_logical_type(&any);
    duckdb.destroy_logical_type(&real);
    return worked;
}

/* A database that does not take it is opened all the same, without the functions; who has the second has both. */
static int enter_database(Handle info, Access *access) {
    Handle *database = access->get_database(info);
    Handle connection = NULL;
    if (!database || duckdb.connect(*database, &connection)) return 1;
    if (add_function(connection, "__sqlml_linear", TYPE_DOUBLE, linear)) add_function(connection, "__sqlml_trees", TYPE_FLOAT, trees);
    duckdb.disconnect(&connection);
    return 1;
}

static int32_t describe(Description *description) {
    description->version = 1;
    description->name = "sqlml";
    description->extension_version = "1";
    description->api_version = "v1.2.0";
    description->v1 = (void (*)(void))enter_database;
    return 0;
}

/* addresses: of DuckDB's functions, in the order of the struct above.  0: done, for databases opened from now on. */
EXPORT int32_t sqlml_duckdb_register(void *const *addresses) {
    memcpy(&duckdb, addresses, sizeof duckdb);
    pthread_once(&once, make_key);
    return duckdb.register_static_extension(describe);
}
