/* Ensembles of trees over blocks of rows.
 *
 * A tree is a program in postfix order, one step a split.  A step looks at its column for all rows of a block and chooses, row by row,
 * between what its two sides gave: every split is evaluated, none is jumped over, so that a step is a compare and a blend of vectors
 * that any compiler makes of the loops below.  For few rows, and for trees with very many splits, rows walk from the root instead.
 *
 * Values are float32, NaN is missing and goes where the split's default points.  A row's sum starts at the base score and takes the
 * trees in their order, in float32: XGBoost's own sums, but for the moment at which it adds the base score.
 * A value is on the left where it is smaller than the threshold; a category where the split's set does not have it.
 *
 * Plain C99 with GCC's vectors of no fixed machine: x86-64 with AVX-512, AVX2 or neither is chosen when it runs.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "forest.h"

#define BLOCK 128     /* rows that one step works on */
#define FEW 5         /* fewer rows than this walk */
#define MOST_STEPS 768 /* trees with more splits are walked */
#define FEW_WORDS 4     /* sets of more are looked up row by row */
#define MOST_LEVELS 64 /* values that wait for their sibling, at most */

/* --- making one ------------------------------------------------------------------------------------------------------ */

typedef struct {
    Forest *forest;
    int32_t steps, deepest;
} Writer;

static int32_t count_splits(const Node *node, int32_t at, int32_t limit) {
    if (node[at].column < 0) return 0;
    if (limit <= 0) return 1;
    int32_t left = count_splits(node, node[at].left, limit - 1);
    if (left >= limit) return left + 1;
    return left + count_splits(node, node[at].right, limit - left - 1) + 1;
}

/* How many values wait while a subtree is computed. */
static int32_t depth_of(const Node *node, int32_t at) {
    if (node[at].column < 0) return 0;
    int32_t left = depth_of(node, node[at].left), right = depth_of(node, node[at].right);
    int32_t with_left = node[node[at].left].column < 0 ? right : right + 1;
    int32_t most = left > with_left ? left : with_left;
    return most < 1 ? 1 : most;
}

static int between_leaves(const Node *node, int32_t at) {
    return node[at].column >= 0 && node[node[at].left].column < 0 && node[node[at].right].column < 0;
}

static int is_triple(const Node *node, int32_t at) {
    const int32_t left = node[at].left, right = node[at].right, kind = CATEGORIES | DEFAULT_LEFT;
    return between_leaves(node, left) && between_leaves(node, right) && !(node[at].flags & CATEGORIES)
        && !((node[at].flags ^ node[left].flags) & kind) && !((node[at].flags ^ node[right].flags) & kind);
}

static void write_steps(Writer *writer, const Node *node, int32_t at) {
    const Node *own = &node[at], *left = &node[own->left], *right = &node[own->right];
    Step step = {own->flags, own->column, own->threshold, 0, 0, own->set, own->words};
    if (left->column < 0) {
        step.flags |= LEFT_IS_LEAF;
        step.left = left->threshold;
    } else {
        write_steps(writer, node, own->left);
    }
    if (right->column < 0) {
        step.flags |= RIGHT_IS_LEAF;
        step.right = right->threshold;
    } else {
        write_steps(writer, node, own->right);
    }
    writer->forest->step[writer->steps++] = step;
    if (is_triple(node, at)) writer->forest->step[writer->steps - 3].flags |= TRIPLE;
}

void forest_free(Forest *forest) {
    if (!forest) return;
    if (forest->pruning) pruning_free(forest->pruning);
    if (!forest->borrows) free(forest->set);
    free(forest->base); free(forest->tree); free(forest->node); free(forest->step);
    free(forest->used); free(forest->codes); free(forest->splits); free(forest);
}

EXPORT void sqlml_forest_free(Forest *forest) { forest_free(forest); }

Forest *forest_room(int32_t trees, int32_t groups, int32_t columns, int64_t nodes, int64_t set_words) {
    Forest *forest = calloc(1, sizeof *forest);
    if (!forest) return NULL;
    forest->trees = trees; forest->groups = groups; forest->columns = columns; forest->nodes = nodes;
    forest->base = malloc(groups * sizeof *forest->base);
    forest->tree = calloc(trees + 1, sizeof *forest->tree);
    forest->node = malloc((nodes + 1) * sizeof *forest->node);
    forest->step = malloc((nodes + 1) * sizeof *forest->step);
    forest->set = malloc((set_words + 1) * sizeof *forest->set);
    forest->used = calloc(columns + 1, 1);
    forest->codes = calloc(columns + 1, 1);
    forest->splits = calloc(columns + 1, sizeof *forest->splits);
    if (forest->base && forest->tree && forest->node && forest->step && forest->set && forest->used && forest->codes
        && forest->splits)
        return forest;
    forest_free(forest);
    return NULL;
}

/* What is known of the columns, from a node. */
static void look_at(Forest *forest, const Node *node) {
    if (node->column < 0) return;
    forest->used[node->column] = 1;
    forest->splits[node->column]++;
    if (node->flags & CATEGORIES) forest->codes[node->column] = 1, forest->is_categorical = 1;
}

int32_t finish_tree(Forest *forest, int32_t i, int32_t root, int32_t group, int32_t step) {
    Writer writer = {forest, step, 0};
    Tree tree = {root, step, 0, group};
    if (forest->node[root].column >= 0 && count_splits(forest->node, root, MOST_STEPS) <= MOST_STEPS
        && depth_of(forest->node, root) < MOST_LEVELS) {
        write_steps(&writer, forest->node, root);
        tree.steps = writer.steps - step;
        forest->step[writer.steps - 1].flags |= LAST;
    }
    forest->tree[i] = tree;
    return writer.steps;
}

/* nodes of all trees, one tree after the other: children are numbers in their own tree; column -1 is a leaf.  NULL: no memory. */
EXPORT Forest *sqlml_forest_new(int32_t trees, const int32_t *sizes, const int32_t *group, int32_t groups, const float *base,
                                int32_t columns, const int32_t *column, const float *threshold, const int32_t *left,
                                const int32_t *right, const uint8_t *flags, const int32_t *set, const int32_t *words,
                                int64_t set_words, const uint32_t *sets) {
    int64_t nodes = 0;
    for (int32_t i = 0; i < trees; i++) nodes += sizes[i];
    Forest *forest = forest_room(trees, groups, columns, nodes, set_words);
    if (!forest) return NULL;
    memcpy(forest->base, base, groups * sizeof *base);
    memcpy(forest->set, sets, set_words * sizeof *sets);
    int32_t first = 0, step = 0, walked = 0;
    for (int32_t i = 0; i < trees; first += sizes[i++]) {
        for (int32_t j = first; j < first + sizes[i]; j++) {
            Node node = {column[j], flags[j], threshold[j], first + left[j], first + right[j], set[j], words[j]};
            forest->node[j] = node;
            look_at(forest, &node);
        }
        step = finish_tree(forest, i, first, group[i], step);
        walked = walked || (column[first] >= 0 && !forest->tree[i].steps);
    }
    if (!walked) forest->pruning = pruning_new(); /* trees of any depth are not copied by functions that call themselves */
    return forest;
}

/* --- walking --------------------------------------------------------------------------------------------------------- */

static float walk(const Forest *forest, int32_t at, const float *const *column, int64_t row) {
    const Node *node = &forest->node[at];
    while (node->column >= 0) {
        int left = goes_left(forest, node, column[node->column][row]);
        node = &forest->node[left ? node->left : node->right];
    }
    return node->threshold;
}

static float walk_row(const Forest *forest, int32_t at, const float *row) {
    const Node *node = &forest->node[at];
    if (forest->is_categorical) {
        while (node->column >= 0) node = &forest->node[goes_left(forest, node, row[node->column]) ? node->left : node->right];
        return node->threshold;
    }
    while (node->column >= 0) {
        float value = row[node->column];
        int left = value < node->threshold || (value != value && (node->flags & DEFAULT_LEFT));
        node = &forest->node[left ? node->left : node->right];
    }
    return node->threshold;
}

/* --- blocks ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    float stack[MOST_LEVELS][BLOCK];
    int32_t chosen[BLOCK]; /* -1: left */
} Space;

/* Which rows go left by a set of categories: -1, else 0.  `missing` is the same of rows without a category. */
static inline __attribute__((always_inline)) void look_up(int32_t *restrict chosen, const int32_t *restrict code,
                                                          const uint32_t *restrict set, int32_t words, int32_t missing, int rows) {
    if (words <= FEW_WORDS) {
        for (int r = 0; r < rows; r++) chosen[r] = code[r] == MISSING ? missing : -1;
        for (int32_t w = 0; w < words; w++) {
            const uint32_t word = set[w];
            if (!word) continue;
            for (int r = 0; r < rows; r++)
                chosen[r] = (code[r] >> 5) == w ? -(int32_t)(((word >> (code[r] & 31)) & 1) ^ 1) : chosen[r];
        }
        return;
    }
    const uint32_t most = (uint32_t)words * 32;
    for (int r = 0; r < rows; r++) {
        const int32_t known = (uint32_t)code[r] < most;
        const uint32_t word = set[known ? code[r] >> 5 : 0];
        const int32_t own_way = -(int32_t)(((word >> (code[r] & 31)) & (uint32_t)known) ^ 1);
        chosen[r] = code[r] == MISSING ? missing : own_way;
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

#define V4 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#define V3 __attribute__((target("avx2,fma")))

/* Sets of up to 16 words stand in two registers: a permutation fetches every row's word. */
V3 static inline void look_up_v3(int32_t *restrict chosen, const int32_t *restrict code, const uint32_t *restrict set, int32_t words,
                                 int32_t missing, int rows) {
    if (words > 16) {
        look_up(chosen, code, set, words, missing, rows);
        return;
    }
    uint32_t whole[16] = {0};
    memcpy(whole, set, words * sizeof *set);
    const __m256i low = _mm256_loadu_si256((const __m256i *)whole), high = _mm256_loadu_si256((const __m256i *)(whole + 8));
    const __m256i ones = _mm256_set1_epi32(-1), one = _mm256_set1_epi32(1), last = _mm256_set1_epi32(31);
    const __m256i most = _mm256_set1_epi32(words * 32), seven = _mm256_set1_epi32(7), zero = _mm256_setzero_si256();
    const __m256i of_missing = _mm256_set1_epi32(missing);
    for (int r = 0; r < rows; r += 8) {
        const __m256i own = _mm256_loadu_si256((const __m256i *)(code + r));
        const __m256i place = _mm256_srli_epi32(own, 5);
        __m256i word = _mm256_permutevar8x32_epi32(low, place);
        if (words > 8) word = _mm256_blendv_epi8(word, _mm256_permutevar8x32_epi32(high, place), _mm256_cmpgt_epi32(place, seven));
        const __m256i bit = _mm256_sllv_epi32(one, _mm256_and_si256(own, last));
        const __m256i known = _mm256_and_si256(_mm256_cmpgt_epi32(most, own), _mm256_cmpgt_epi32(own, ones)); /* 0 to most - 1 */
        const __m256i outside = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_and_si256(word, bit), known), zero);
        _mm256_storeu_si256((__m256i *)(chosen + r), _mm256_blendv_epi8(outside, of_missing, _mm256_cmpeq_epi32(own, ones)));
    }
}
#endif

/* One step for ROWS rows: LEFT and RIGHT are expressions of r; the value goes to `to`, or is added to the sums. */
#define CHOOSE(IS_LEFT, LEFT, RIGHT)                                                                                         \
    do {                                                                                                                     \
        if (last) for (int r = 0; r < rows; r++) sum[r] += (IS_LEFT) ? (LEFT) : (RIGHT);                                     \
        else for (int r = 0; r < rows; r++) to[r] = (IS_LEFT) ? (LEFT) : (RIGHT);                                            \
    } while (0)

#define SIDES(IS_LEFT)                                                                                                       \
    switch (flags & (LEFT_IS_LEAF | RIGHT_IS_LEAF)) {                                                                        \
    case LEFT_IS_LEAF | RIGHT_IS_LEAF: to = space->stack[top++]; CHOOSE(IS_LEFT, a, b); break;                               \
    case LEFT_IS_LEAF: to = space->stack[top - 1]; CHOOSE(IS_LEFT, a, to[r]); break;                                         \
    case RIGHT_IS_LEAF: to = space->stack[top - 1]; CHOOSE(IS_LEFT, to[r], b); break;                                        \
    default: {                                                                                                               \
        const float *restrict right = space->stack[--top];                                                                   \
        to = space->stack[top - 1];                                                                                          \
        CHOOSE(IS_LEFT, to[r], right[r]);                                                                                    \
    } }

#define BODY(look)                                                                                                           \
    int top = 0;                                                                                                             \
    for (int32_t i = 0; i < count; i++) {                                                                                    \
        const Step *own = &step[i];                                                                                          \
        const int flags = own->flags, last = flags & LAST;                                                                   \
        const float t = own->threshold, a = own->left, b = own->right;                                                       \
        float *restrict to;                                                                                                  \
        if (flags & CATEGORIES) {                                                                                            \
            const int32_t *restrict code = codes[own->column];                                                               \
            const int32_t missing = flags & DEFAULT_LEFT ? -1 : 0;                                                           \
            int32_t *restrict chosen = space->chosen;                                                                        \
            const uint32_t *set = sets + own->set;                                                                           \
            look(chosen, code, set, own->words, missing, rows);                                                              \
            SIDES(chosen[r] != 0)                                                                                            \
        } else {                                                                                                             \
            const float *restrict x = column[own->column];                                                                   \
            if (flags & DEFAULT_LEFT) { SIDES(!(x[r] >= t)) } else { SIDES(x[r] < t) }                                       \
        }                                                                                                                    \
    }

typedef void Run(const Step *step, int32_t count, const float *const *column, const int32_t *const *codes, const uint32_t *sets,
                 Space *space, float *restrict sum);

#define RUN(NAME, TARGET, ROWS, LOOK)                                                                                        \
    TARGET static void NAME(const Step *step, int32_t count, const float *const *column, const int32_t *const *codes,        \
                            const uint32_t *sets, Space *space, float *restrict sum) {                                       \
        enum { rows = ROWS };                                                                                                \
        BODY(LOOK)                                                                                                           \
    }

#if defined(__x86_64__)
/* AVX-512: a comparison is a mask of 16 rows, and blends two registers. */

typedef struct {
    __m512i low, high; /* the first 32 words */
    const uint32_t *set;
    int32_t words;
    __mmask16 away; /* all, where missing goes right */
} Set;

V4 static inline Set set_of(const Step *step, const uint32_t *sets) {
    const uint32_t *set = sets + step->set;
    const int32_t words = step->words;
    const uint32_t mask = words >= 32 ? ~0u : (1u << words) - 1;
    const Set found = {
        _mm512_maskz_loadu_epi32((__mmask16)mask, set),
        _mm512_maskz_loadu_epi32((__mmask16)(mask >> 16), set + (words > 16 ? 16 : 0)),
        set,
        words,
        step->flags & DEFAULT_LEFT ? 0 : (__mmask16)~0,
    };
    return found;
}

/* Which of 16 rows go left by their categories: a permutation fetches every row's word, of a large set the memory. */
V4 static inline __mmask16 left_by_set(const Set *set, const int32_t *code) {
    const __m512i own = _mm512_loadu_si512(code), place = _mm512_srli_epi32(own, 5);
    const __m512i bit = _mm512_sllv_epi32(_mm512_set1_epi32(1), _mm512_and_si512(own, _mm512_set1_epi32(31)));
    const __mmask16 known = _mm512_cmplt_epu32_mask(own, _mm512_set1_epi32(set->words * 32));
    __m512i word;
    if (set->words <= 16) word = _mm512_permutexvar_epi32(place, set->low);
    else if (set->words <= 32) word = _mm512_permutex2var_epi32(set->low, place, set->high);
    else word = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), known, place, set->set, 4);
    const __mmask16 missing = _mm512_cmpeq_epi32_mask(own, _mm512_set1_epi32(MISSING));
    return (__mmask16)~(_mm512_mask_test_epi32_mask(known, word, bit) | (missing & set->away));
}

#define PUT(VALUE)                                                                                                           \
    do {                                                                                                                     \
        const __m512 value = (VALUE);                                                                                        \
        if (last) _mm512_storeu_ps(sum + r, _mm512_add_ps(_mm512_loadu_ps(sum + r), value));                                 \
        else _mm512_storeu_ps(to + r, value);                                                                                \
    } while (0)

#define EACH for (int r = 0; r < rows; r += 16)

/* LEFT(r) is the mask of the rows that go left. */
#define SIDES_V4(LEFT)                                                                                                       \
    switch (flags & (LEFT_IS_LEAF | RIGHT_IS_LEAF)) {                                                                        \
    case LEFT_IS_LEAF | RIGHT_IS_LEAF: to = space->stack[top++]; EACH PUT(_mm512_mask_blend_ps(LEFT(r), b, a)); break;       \
    case LEFT_IS_LEAF:                                                                                                       \
        to = space->stack[top - 1];                                                                                          \
        EACH PUT(_mm512_mask_blend_ps(LEFT(r), _mm512_loadu_ps(to + r), a));                                                 \
        break;                                                                                                               \
    case RIGHT_IS_LEAF:                                                                                                      \
        to = space->stack[top - 1];                                                                                          \
        EACH PUT(_mm512_mask_blend_ps(LEFT(r), b, _mm512_loadu_ps(to + r)));                                                 \
        break;                                                                                                               \
    default: {                                                                                                               \
        const float *right = space->stack[--top];                                                                            \
        to = space->stack[top - 1];                                                                                          \
        EACH PUT(_mm512_mask_blend_ps(LEFT(r), _mm512_loadu_ps(right + r), _mm512_loadu_ps(to + r)));                        \
    } }

#define IS_BELOW(X, T, ORDER) _mm512_cmp_ps_mask(_mm512_loadu_ps(X), T, ORDER)
#define BY_SET(R) left_by_set(&set, code + (R))
#define BY_VALUE(R) IS_BELOW(x + (R), t, _CMP_LT_OQ)
#define BY_VALUE_OR_MISSING(R) IS_BELOW(x + (R), t, _CMP_NGE_UQ)

#define TRIPLE_V4(ORDER)                                                                                                     \
    EACH PUT(_mm512_mask_blend_ps(IS_BELOW(z + r, v, ORDER), _mm512_mask_blend_ps(IS_BELOW(y + r, u, ORDER), d, c),          \
                                  _mm512_mask_blend_ps(IS_BELOW(x + r, t, ORDER), b, a)))

V4 static inline __attribute__((always_inline)) void run_v4(const int rows, const Step *step, int32_t count,
                                                            const float *const *column, const int32_t *const *codes,
                                                            const uint32_t *sets, Space *space, float *sum) {
    int top = 0;
    for (int32_t i = 0; i < count; i++) {
        const Step *own = &step[i];
        const int flags = own->flags;
        const float *x = column[own->column];
        const __m512 t = _mm512_set1_ps(own->threshold), a = _mm512_set1_ps(own->left), b = _mm512_set1_ps(own->right);
        float *to;
        if (flags & TRIPLE) { /* a split, its two sides splits between leaves: nothing of it waits in memory */
            const float *y = column[own[1].column], *z = column[own[2].column];
            const __m512 u = _mm512_set1_ps(own[1].threshold), c = _mm512_set1_ps(own[1].left), d = _mm512_set1_ps(own[1].right);
            const __m512 v = _mm512_set1_ps(own[2].threshold);
            const int last = own[2].flags & LAST;
            to = last ? sum : space->stack[top++];
            if (flags & DEFAULT_LEFT) TRIPLE_V4(_CMP_NGE_UQ);
            else TRIPLE_V4(_CMP_LT_OQ);
            i += 2;
            continue;
        }
        const int last = flags & LAST;
        if (flags & CATEGORIES) {
            const int32_t *code = codes[own->column];
            const Set set = set_of(own, sets);
            SIDES_V4(BY_SET)
        } else if (flags & DEFAULT_LEFT) {
            SIDES_V4(BY_VALUE_OR_MISSING)
        } else {
            SIDES_V4(BY_VALUE)
        }
    }
}

#define RUN_V4(NAME, ROWS)                                                                                                   \
    V4 static void NAME(const Step *step, int32_t count, const float *const *column, const int32_t *const *codes,            \
                        const uint32_t *sets, Space *space, float *restrict sum) {                                           \
        run_v4(ROWS, step, count, column, codes, sets, space, sum);                                                          \
    }

RUN_V4(run_128_v4, BLOCK)
RUN_V4(run_32_v4, 32)
RUN(run_128_v3, V3, BLOCK, look_up_v3)
RUN(run_32_v3, V3, 32, look_up_v3)
#endif
RUN(run_128, , BLOCK, look_up)
RUN(run_32, , 32, look_up)

static Run *choose_run(int many) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl"))
        return many ? run_128_v4 : run_32_v4;
    if (__builtin_cpu_supports("avx2")) return many ? run_128_v3 : run_32_v3;
#endif
    return many ? run_128 : run_32;
}

/* The instructions that are used: "avx512", "avx2" or "portable". */
EXPORT const char *sqlml_instructions(void) {
#if defined(__x86_64__)
    Run *run = choose_run(1);
    if (run == run_128_v4) return "avx512";
    if (run == run_128_v3) return "avx2";
#endif
    return "portable";
}

/* Sums of `rows` rows whose columns lie from `column[c]` on; at least `size` values can be read there.  sums: [group][BLOCK]. */
static void run_block(const Forest *forest, const float *const *column, const int32_t *const *codes, int rows, Run *run,
                      Space *space, float *sums) {
    for (int32_t g = 0; g < forest->groups; g++)
        for (int r = 0; r < BLOCK; r++) sums[g * BLOCK + r] = forest->base[g];
    for (int32_t i = 0; i < forest->trees; i++) {
        const Tree *tree = &forest->tree[i];
        float *sum = sums + tree->group * BLOCK;
        if (tree->steps)
            run(forest->step + tree->step, tree->steps, column, codes, forest->set, space, sum);
        else
            for (int r = 0; r < rows; r++) sum[r] += walk(forest, tree->root, column, r);
    }
}

typedef struct {
    float *values;         /* a block by column */
    int32_t *numbers;      /* its categories */
    const float **column;
    const int32_t **codes;
    float *sums;
    Space *space;
} Room;

static void leave(Room *room) {
    free(room->values); free(room->numbers); free(room->column); free(room->codes); free(room->sums); free(room->space);
}

static void *lines(size_t bytes) { /* on a border of cache lines */
    void *found = NULL;
    return posix_memalign(&found, 64, bytes ? bytes : 64) ? NULL : found;
}

static int enter(Room *room, const Forest *forest) {
    size_t columns = forest->columns + 1;
    room->values = lines(columns * BLOCK * sizeof(float));
    room->numbers = forest->is_categorical ? lines(columns * BLOCK * sizeof(int32_t)) : lines(0);
    room->column = malloc(columns * sizeof *room->column);
    room->codes = malloc(columns * sizeof *room->codes);
    room->sums = lines((size_t)forest->groups * BLOCK * sizeof(float));
    room->space = lines(sizeof *room->space);
    if (room->values && room->numbers && room->column && room->codes && room->sums && room->space) return 1;
    leave(room);
    return 0;
}

static void prepare_codes(const Forest *forest, Room *room, int size) {
    if (!forest->is_categorical) return;
    for (int32_t c = 0; c < forest->columns; c++) {
        if (!forest->codes[c]) continue;
        int32_t *code = room->numbers + (size_t)c * BLOCK;
        const float *value = room->column[c];
        for (int r = 0; r < size; r++) code[r] = category_of(value[r]);
        room->codes[c] = code;
    }
}

static void put_sums(const Forest *forest, const float *sums, int rows, float *out) {
    for (int32_t g = 0; g < forest->groups; g++)
        for (int r = 0; r < rows; r++) out[(int64_t)r * forest->groups + g] = sums[g * BLOCK + r];
}

/* x: n rows of `columns` values; out: n rows of `groups` sums.  0: there was no memory. */
EXPORT int sqlml_forest_rows(const Forest *forest, const float *x, int64_t n, float *out) {
    const int32_t k = forest->columns, groups = forest->groups;
    if (n < FEW) {
        for (int64_t r = 0; r < n; r++) {
            for (int32_t g = 0; g < groups; g++) out[r * groups + g] = forest->base[g];
            for (int32_t i = 0; i < forest->trees; i++)
                out[r * groups + forest->tree[i].group] += walk_row(forest, forest->tree[i].root, x + r * k);
        }
        return 1;
    }
    Room room;
    if (!enter(&room, forest)) return 0;
    for (int32_t c = 0; c < k; c++) room.column[c] = room.values + (size_t)c * BLOCK;
    for (int64_t first = 0; first < n; first += BLOCK) {
        int rows = n - first < BLOCK ? (int)(n - first) : BLOCK;
        for (int part = 0; part < rows;) {
            int left = rows - part, size = left > 64 ? BLOCK : 32, taken = left < size ? left : size;
            const float *from = x + (first + part) * k;
            for (int32_t c = 0; c < k; c++) {
                if (!forest->used[c]) continue;
                float *value = room.values + (size_t)c * BLOCK;
                for (int r = 0; r < taken; r++) value[r] = from[(int64_t)r * k + c];
                for (int r = taken; r < size; r++) value[r] = 0;
            }
            prepare_codes(forest, &room, size);
            run_block(forest, room.column, room.codes, taken, choose_run(size == BLOCK), room.space, room.sums);
            put_sums(forest, room.sums, taken, out + (first + part) * groups);
            part += taken;
        }
    }
    leave(&room);
    return 1;
}

/* The same of columns of n values each; those that no split looks at may be NULL. */
EXPORT int sqlml_forest_columns(const Forest *whole, const float *const *column, int64_t n, float *out) {
    const Forest *forest = lend(whole, column, n);
    Room room;
    if (!enter(&room, forest)) {
        give_back(whole, forest);
        return 0;
    }
    for (int64_t first = 0; first < n; first += BLOCK) {
        int rows = n - first < BLOCK ? (int)(n - first) : BLOCK;
        for (int32_t c = 0; c < forest->columns; c++) {
            room.column[c] = NULL;
            if (!forest->used[c]) continue;
            if (rows == BLOCK) {
                room.column[c] = column[c] + first;
            } else {
                float *value = room.values + (size_t)c * BLOCK;
                memcpy(value, column[c] + first, rows * sizeof *value);
                memset(value + rows, 0, (BLOCK - rows) * sizeof *value);
                room.column[c] = value;
            }
        }
        prepare_codes(forest, &room, BLOCK);
        run_block(forest, room.column, room.codes, rows, choose_run(1), room.space, room.sums);
        put_sums(forest, room.sums, rows, out + first * forest->groups);
    }
    leave(&room);
    give_back(whole, forest);
    return 1;
}

/* --- what stands behind the sums, as XGBoost computes it (src/common/math.h) ------------------------------------------ */

enum { LOGISTIC = 1, SOFTMAX = 2, EXPONENTIAL = 3 };

/* In place; values: n rows of `groups`. */
EXPORT void sqlml_link(int32_t kind, float *values, int64_t n, int32_t groups) {
    if (kind == SOFTMAX) {
        for (int64_t r = 0; r < n; r++, values += groups) {
            float most = values[0];
            for (int32_t g = 1; g < groups; g++) most = fmaxf(most, values[g]);
            double total = 0;
            for (int32_t g = 0; g < groups; g++) {
                values[g] = expf(values[g] - most);
                total += values[g];
            }
            for (int32_t g = 0; g < groups; g++) values[g] /= (float)total;
        }
        return;
    }
    for (int64_t i = 0; i < n * groups; i++)
        values[i] = kind == LOGISTIC ? (float)(1.0f / (expf(fminf(-values[i], 88.7f)) + 1.0f + 1e-16)) : expf(values[i]);
}

/* The answers of one call: margins, what `kind` makes of them, as doubles.  `both`: 1 - p and p of each.  0: there was no memory. */
EXPORT int sqlml_forest_answers(const Forest *forest, int32_t kind, int32_t both, const float *x, int64_t n, double *out) {
    float few[256];
    int64_t count = n * forest->groups;
    float *sums = count <= 256 ? few : malloc(count * sizeof *sums);
    if (!sums) return 0;
    int done = sqlml_forest_rows(forest, x, n, sums);
    if (done && kind) sqlml_link(kind, sums, n, forest->groups);
    for (int64_t i = 0; done && i < count; i++) {
        if (both) *out++ = 1.0 - (double)sums[i];
        *out++ = (double)sums[i];
    }
    if (sums != few) free(sums);
    return done;
}
