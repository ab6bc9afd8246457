/* An ensemble of trees in memory: made by trees.c, which computes with it, and by pruning.c, which leaves branches out. */

#ifndef SQLML_FOREST_H
#define SQLML_FOREST_H

#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum { LEFT_IS_LEAF = 1, RIGHT_IS_LEAF = 2, DEFAULT_LEFT = 4, CATEGORIES = 8, LAST = 16, TRIPLE = 32 };
/* TRIPLE: this step and the next two are a split whose sides are splits between leaves; they may be taken at once. */

typedef struct {
    int32_t flags;
    int32_t column;
    float threshold;
    float left, right; /* of leaves */
    int32_t set;       /* the first word of a categorical split's set */
    int32_t words;
} Step;

typedef struct {
    int32_t column; /* -1: a leaf, whose value is the threshold */
    int32_t flags;
    float threshold;
    int32_t left, right;
    int32_t set, words;
} Node;

typedef struct {
    int32_t root, step, steps; /* steps is 0 for a tree that is walked */
    int32_t group;
} Tree;

typedef struct Pruning Pruning;

typedef struct {
    int32_t trees, groups, columns, is_categorical; /* whether any split is */
    int64_t nodes;
    float *base;
    Tree *tree;
    Node *node;
    Step *step;
    uint32_t *set;
    int32_t borrows; /* whether `set` is another's */
    uint8_t *used, *codes; /* columns that are looked at, and those that are looked at as categories */
    int32_t *splits;       /* how many look at each column */
    Pruning *pruning; /* NULL: nothing of it is pruned */
} Forest;

#define MISSING (-1)
#define OUTSIDE (-2)

static inline int32_t category_of(float value) {
    if (value != value) return MISSING;
    return value < 0 || value >= 16777216.0f ? OUTSIDE : (int32_t)value;
}

static inline int in_set(const uint32_t *set, int32_t words, int32_t code) {
    return (code >> 5) < words && (set[code >> 5] >> (code & 31)) & 1;
}

static inline int goes_left(const Forest *forest, const Node *node, float value) {
    if (value != value) return (node->flags & DEFAULT_LEFT) != 0;
    if (node->flags & CATEGORIES) {
        int32_t code = category_of(value);
        return code < 0 || !in_set(forest->set + node->set, node->words, code);
    }
    return value < node->threshold;
}

EXPORT int sqlml_forest_columns(const Forest *forest, const float *const *column, int64_t n, float *out);
EXPORT void sqlml_link(int32_t kind, float *values, int64_t n, int32_t groups);

/* Room for an ensemble; NULL: no memory. */
Forest *forest_room(int32_t trees, int32_t groups, int32_t columns, int64_t nodes, int64_t set_words);
/* Write the steps of tree `i`, whose nodes stand from `root` on; `step` steps were written before, so many are after. */
int32_t finish_tree(Forest *forest, int32_t i, int32_t root, int32_t group, int32_t step);
void forest_free(Forest *forest);

/* The ensemble for n rows with these columns: pruned where some hold one value throughout.  To be given back. */
const Forest *lend(const Forest *forest, const float *const *column, int64_t n);
void give_back(const Forest *whole, const Forest *lent);
Pruning *pruning_new(void); /* NULL: no memory */
void pruning_free(Pruning *pruning);

#endif
