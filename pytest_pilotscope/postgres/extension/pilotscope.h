/*
 * pilotscope: steer the planner of a stock PostgreSQL server, 13 to 19.
 *
 * Everything goes through planner hooks and settings; there are no SQL objects. The files:
 *
 *   settings.c     the pilotscope.* settings: defined, parsed and validated when they are SET
 *   state.c        planner and executor hooks: one record per planner run, one per query level, timing
 *   base_rows.c    base relations: injected rows, scan methods, hidden indexes
 *   join_rows.c    join relations: injected rows, join methods and directions
 *   join_orders.c  join orders given as trees
 *   report.c       the sets that the planner considered, as JSON
 *   noting.c       the joins that make each set, noted while the planner searches
 *   texts.c        expressions of a level as SQL
 *   filters.c      conditions and keys of one relation in a structured form
 *   buffers.c      taking a database out of shared buffers
 *   meaning.c      the meaning of each set of relations, as JSON; sources.c, sets.c and results.c are its parts
 *
 * A "set" is a set of base relations of one query level, named by their aliases; cardinalities and methods are given
 * for sets. A "level" is one planned query: a subquery that is not flattened is a level of its own.
 */
#ifndef PILOTSCOPE_H
#define PILOTSCOPE_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/pathnodes.h"
#include "nodes/plannodes.h"
#include "utils/hsearch.h"

#if PG_VERSION_NUM < 130000 || PG_VERSION_NUM >= 200000
#error "pilotscope supports PostgreSQL 13 to 19"
#endif

/* The server loads libraries with global symbols, so ours are hidden from each other's neighbours. */
#pragma GCC visibility push(hidden)

typedef enum PsMethod {
    PS_ANY,
    PS_NESTLOOP,
    PS_MERGEJOIN,
    PS_HASHJOIN,
    PS_SEQSCAN,
    PS_INDEXSCAN,
    PS_INDEXONLYSCAN,
    PS_BITMAPSCAN,
    PS_TIDSCAN,
    PS_METHODS /* how many there are */
} PsMethod;

/* The planner's switches while other ones are in force. */
typedef struct PsSwitches {
#if PG_VERSION_NUM >= 190000
    uint64 mask; /* of one relation */
#else
    bool on[PS_METHODS]; /* of the session */
#endif
} PsSwitches;

/* One member of pilotscope.cardinalities or pilotscope.methods. */
typedef struct PsKey {
    int level; /* 0: every level that has these aliases */
    List *aliases;
    double rows;     /* of a cardinality */
    PsMethod method; /* of a method */
    bool used;       /* by this planner run: it names relations of some level */
} PsKey;

/* A node of a join tree: a leaf has an alias, a join its outer and inner side, a group three or more members in no order. */
typedef struct PsNode {
    char *alias;
    List *children; /* of PsNode */
} PsNode;

/* One tree of pilotscope.join_order. */
typedef struct PsTree {
    int level; /* 0: every level that has these aliases */
    PsNode *root;
    bool used;
} PsTree;

/* Two sets of relations whose join is a larger set. */
typedef struct PsPair {
    JoinType kind;
    Relids outer;
    Relids inner;
    List *on;     /* of RestrictInfo: they decide which rows match */
    List *where;  /* of RestrictInfo: they filter the result of an outer join */
    List *unique; /* of a unique join: what the inner side is distinct by */
} PsPair;

/* One set of base relations: its rows, and the hints for it. Hashed by relids. */
typedef struct PsSet {
    Relids relids;
    double rows;  /* injected and clamped, or -1 */
    double stock; /* the planner's own estimate, or -1 */
    double seen;  /* noted under GEQO, whose join relations do not last, or -1 */
    PsMethod method;
    Relids outer; /* this side of the join must be the outer one, or NULL */
    List *pairs;  /* of PsPair, with pilotscope.enumerate_sql */
} PsSet;

/* One PlannerInfo. */
typedef struct PsLevel {
    struct PsLevel *next; /* towards earlier levels */
    PlannerInfo *root;
    int id;         /* 1.. in the order in which they were planned: inner queries first */
    bool trial;     /* a copy of the query with the next id */
    Relids base;    /* its base relations */
    List *branches; /* of AppendRelInfo: the branches of UNION ALL in its FROM, with pilotscope.enumerate_sql */
    int size;       /* length of the two arrays below */
    char **aliases; /* by range table index; NULL where there is no base relation */
    double *factor; /* by range table index: injected / stock rows, also of partitions */
    bool changed;   /* some base relation got other rows than stock */
    bool fresh;     /* no base relation has been through the hook yet */
    HTAB *sets;     /* PsSet by relids, or NULL */
    bool described; /* in the report of meanings */
} PsLevel;

/* One run of the planner. */
typedef struct PsRun {
    MemoryContext context; /* lives as long as the planner run; GEQO resets its own */
    PsLevel *levels;       /* the newest first */
    int count;
    bool redoing; /* the next call of the join hook is for paths that we asked for */
    Bitmapset *told_parameters; /* those in the report of meanings */
    Bitmapset *told_subplans;
} PsRun;

/* state.c */
extern PsRun *ps_run; /* NULL: nothing is to be steered, all hooks return at once */
extern PsLevel *ps_level(PlannerInfo *root);
extern PsSet *ps_find(PsLevel *level, Relids relids);
extern PsSet *ps_enter(PsLevel *level, Relids relids);
extern Relids ps_base_part(PlannerInfo *root, RelOptInfo *rel);
extern int ps_relation(PsLevel *level, const char *alias);
extern const char *ps_show_timing(void);

/* base_rows.c */
extern void ps_install_base(void);

/* join_rows.c */
extern void ps_install_joins(void);
extern bool ps_join_hook_is_ours_alone(void);
extern void ps_choose_method(PsMethod method, RelOptInfo *rel, PsSwitches *saved);
extern void ps_restore_methods(RelOptInfo *rel, const PsSwitches *saved);

/* join_orders.c */
extern void ps_install_hints(void);

/* report.c */
extern void ps_report(void);
extern void ps_forget_report(void);
extern const char *ps_show_report(void);

/* noting.c */
extern List *ps_note_branches(PsLevel *level);
extern bool ps_is_branch(PsLevel *level, int index);
extern void ps_note_join(PsSet *set, PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer, RelOptInfo *inner, JoinType kind,
                         JoinPathExtraData *extra);

/* texts.c */
typedef struct PsTexts PsTexts;
extern PsTexts *ps_start_texts(PsLevel *level, StringInfo parameters, StringInfo subplans);
extern char *ps_text(PsTexts *texts, Node *expression, bool qualified);
extern char *ps_relation_name(PsLevel *level, int index);
extern void ps_tell_parameter(PsTexts *texts, int number, Node *expression);
extern char ps_volatility(Node *expression);

/* filters.c */
extern void ps_append_filter(StringInfo json, PsTexts *texts, RangeTblEntry *rte, Node *condition);
extern void ps_append_key(StringInfo json, PsLevel *level, const EquivalenceClass *class, const EquivalenceMember *member);

/* meaning.c */
extern void ps_describe(void);
extern void ps_forget_meaning(void);
extern const char *ps_show_meaning(void);

/* settings.c */
extern bool ps_enumerate;
extern bool ps_enumerate_sql;
extern bool ps_ignore_statistics;
extern List *ps_cardinalities;  /* of PsKey */
extern List *ps_methods;        /* of PsKey */
extern List *ps_join_order;     /* of PsTree */
extern List *ps_hidden_indexes; /* of names, some after that of their schema */
extern void ps_define_settings(void);

/* buffers.c */
extern void ps_define_drop_buffers(void);
extern void ps_refresh_settings(void);

#define ps_is_join_method(method) ((method) >= PS_NESTLOOP && (method) <= PS_HASHJOIN)

#pragma GCC visibility pop

#endif
