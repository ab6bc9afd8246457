/* Ensembles without the branches that no row of a chunk reaches: where a column holds one value throughout, as after WHERE plan =
 * 'pro' or in a sorted table, its splits are decided, once, and only what they lead to is computed.  The answers are the same.
 *
 * A chunk's constants are found by looking, so that nothing has to be known of the query.  What was pruned is kept for the chunks
 * to come, from the third with the same constants on; several threads share it.
 */

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "forest.h"

#define KEPT 8        /* pruned ensembles of one whole … */
#define ROOM 4        /* … which together have at most so many times its nodes */
#define FEWEST 256    /* rows: for fewer it is not worth looking */
#define WORTH 16      /* a sixteenth of the splits must look at columns that are constant */
#define OFTEN 3       /* chunks in which constants are seen before anything is made for them */

typedef struct {
    Forest *forest;    /* NULL: these constants were not seen often enough, or somebody is at it */
    uint8_t *constant; /* of each column, whether it is */
    float *value;
    int64_t last;
    int32_t seen, lent; /* who prunes it has it, too */
} Entry;

struct Pruning {
    pthread_mutex_t lock;
    int64_t clock;
    Entry entry[KEPT];
};

static void empty(Entry *entry) {
    if (entry->forest) forest_free(entry->forest);
    free(entry->constant); free(entry->value);
    memset(entry, 0, sizeof *entry);
}

void pruning_free(Pruning *pruning) {
    for (int i = 0; i < KEPT; i++) empty(&pruning->entry[i]);
    pthread_mutex_destroy(&pruning->lock);
    free(pruning);
}

Pruning *pruning_new(void) {
    Pruning *pruning = calloc(1, sizeof *pruning);
    if (pruning) pthread_mutex_init(&pruning->lock, NULL);
    return pruning;
}

/* --- what is constant --------------------------------------------------------------------------------------------------- */

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Missing is a value, too. */
static int is_constant(const float *value, int64_t n) {
    const uint32_t first = bits_of(value[0]);
    for (int64_t r = 1; r < n; r++)
        if (bits_of(value[r]) != first) return 0;
    return 1;
}

/* Which columns are; whether enough splits look at them. */
static int find_constants(const Forest *forest, const float *const *column, int64_t n, uint8_t *constant) {
    int64_t all = 0, decided = 0;
    for (int32_t c = 0; c < forest->columns; c++) {
        constant[c] = forest->used[c] && is_constant(column[c], n);
        all += forest->splits[c];
        if (constant[c]) decided += forest->splits[c];
    }
    return decided * WORTH >= all && decided > 0;
}

/* --- pruning ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    const Forest *whole;
    const Entry *known;
    Forest *made;
    int32_t nodes;
} Gardener;

static int32_t copy(Gardener *gardener, int32_t at) {
    const Forest *whole = gardener->whole;
    const Node *node = &whole->node[at];
    while (node->column >= 0 && gardener->known->constant[node->column]) {
        int left = goes_left(whole, node, gardener->known->value[node->column]);
        node = &whole->node[left ? node->left : node->right];
    }
    int32_t own = gardener->nodes++;
    gardener->made->node[own] = *node;
    if (node->column < 0) return own;
    gardener->made->used[node->column] = 1;
    if (node->flags & CATEGORIES) gardener->made->codes[node->column] = 1, gardener->made->is_categorical = 1;
    int32_t left = copy(gardener, node->left), right = copy(gardener, node->right);
    gardener->made->node[own].left = left;
    gardener->made->node[own].right = right;
    return own;
}

/* NULL: no memory. */
static Forest *prune(const Forest *whole, const Entry *known) {
    Forest *made = forest_room(whole->trees, whole->groups, whole->columns, whole->nodes, 0);
    if (!made) return NULL;
    free(made->set);
    made->set = whole->set;
    made->borrows = 1;
    memcpy(made->base, whole->base, whole->groups * sizeof *made->base);
    Gardener gardener = {whole, known, made, 0};
    int32_t step = 0;
    for (int32_t i = 0; i < whole->trees; i++)
        step = finish_tree(made, i, copy(&gardener, whole->tree[i].root), whole->tree[i].group, step);
    made->nodes = gardener.nodes;
    Node *nodes = realloc(made->node, (gardener.nodes + 1) * sizeof *nodes);
    Step *steps = realloc(made->step, (step + 1) * sizeof *steps);
    if (nodes) made->node = nodes;
    if (steps) made->step = steps;
    return made;
}

/* --- keeping ------------------------------------------------------------------------------------------------------------ */

static int knows(const Entry *entry, const Forest *whole, const uint8_t *constant, const float *const *column) {
    if (!entry->constant || memcmp(entry->constant, constant, whole->columns)) return 0;
    for (int32_t c = 0; c < whole->columns; c++)
        if (constant[c] && bits_of(entry->value[c]) != bits_of(column[c][0])) return 0;
    return 1;
}

static Entry *oldest(Pruning *pruning, int only_made) {
    Entry *found = NULL;
    for (int i = 0; i < KEPT; i++) {
        Entry *entry = &pruning->entry[i];
        if (!entry->lent && (entry->forest || !only_made) && (!found || entry->last < found->last)) found = entry;
    }
    return found;
}

/* Note constants that were not seen before, in a place that was never used, or was not for longest. */
static void note(Pruning *pruning, const Forest *whole, const uint8_t *constant, const float *const *column) {
    Entry *entry = oldest(pruning, 0);
    if (!entry) return;
    empty(entry);
    entry->constant = malloc(whole->columns);
    entry->value = calloc(whole->columns, sizeof *entry->value);
    if (!entry->constant || !entry->value) {
        empty(entry);
        return;
    }
    memcpy(entry->constant, constant, whole->columns);
    for (int32_t c = 0; c < whole->columns; c++)
        if (constant[c]) entry->value[c] = column[c][0];
    entry->last = ++pruning->clock;
    entry->seen = 1;
}

/* Keep what was pruned within its room: the oldest goes.  0: there is no room, all others are in use. */
static int make_room(Pruning *pruning, const Forest *whole, int64_t nodes) {
    for (;;) {
        int64_t all = nodes;
        for (int i = 0; i < KEPT; i++)
            if (pruning->entry[i].forest) all += pruning->entry[i].forest->nodes;
        if (all <= ROOM * whole->nodes) return 1;
        Entry *entry = oldest(pruning, 1);
        if (!entry) return 0;
        empty(entry);
    }
}

/* The pruned ensemble of an entry, made without the lock, so that others compute meanwhile; NULL where there is none yet. */
static const Forest *forest_of(Pruning *pruning, const Forest *whole, Entry *entry) {
    entry->last = ++pruning->clock;
    entry->seen++;
    if (entry->forest) {
        entry->lent++;
        return entry->forest;
    }
    if (entry->seen < OFTEN || entry->lent) return NULL; /* lent: somebody is at it */
    entry->lent = 1;
    pthread_mutex_unlock(&pruning->lock);
    Forest *made = prune(whole, entry);
    pthread_mutex_lock(&pruning->lock);
    if (made && make_room(pruning, whole, made->nodes)) {
        entry->forest = made;
        return made;
    }
    forest_free(made);
    entry->lent = 0;
    return NULL;
}

/* How many nodes the ensembles have that were made of this one. */
EXPORT int64_t sqlml_pruned_nodes(const Forest *whole) {
    int64_t found = 0;
    if (!whole->pruning) return 0;
    pthread_mutex_lock(&whole->pruning->lock);
    for (int i = 0; i < KEPT; i++)
        if (whole->pruning->entry[i].forest) found += whole->pruning->entry[i].forest->nodes;
    pthread_mutex_unlock(&whole->pruning->lock);
    return found;
}

const Forest *lend(const Forest *whole, const float *const *column, int64_t n) {
    Pruning *pruning = whole->pruning;
    if (!pruning || n < FEWEST) return whole;
    uint8_t few[256], *constant = whole->columns <= 256 ? few : malloc(whole->columns);
    if (!constant) return whole;
    const Forest *found = NULL;
    if (find_constants(whole, column, n, constant)) {
        pthread_mutex_lock(&pruning->lock);
        int i = 0;
        while (i < KEPT && !knows(&pruning->entry[i], whole, constant, column)) i++;
        if (i == KEPT) note(pruning, whole, constant, column);
        else found = forest_of(pruning, whole, &pruning->entry[i]);
        pthread_mutex_unlock(&pruning->lock);
    }
    if (constant != few) free(constant);
    return found ? found : whole;
}

void give_back(const Forest *whole, const Forest *lent) {
    if (lent == whole) return;
    pthread_mutex_lock(&whole->pruning->lock);
    for (int i = 0; i < KEPT; i++)
        if (whole->pruning->entry[i].forest == lent) whole->pruning->entry[i].lent--;
    pthread_mutex_unlock(&whole->pruning->lock);
}
