/*
 * meaning.h: declarations shared by the files that describe the meaning of sets: meaning.c, sources.c, sets.c, results.c.
 */
#ifndef PILOTSCOPE_MEANING_H
#define PILOTSCOPE_MEANING_H

#include "pilotscope.h"

#pragma GCC visibility push(hidden)

/* A level while it is described. Clauses and members get their numbers when they are first met. */
typedef struct PsDescription {
    PsLevel *level;
    PlannerInfo *root;
    PsTexts *texts;
    int *numbers; /* of relations, by range table index */
    List *clauses;
    List *members; /* of EquivalenceMember */
    StringInfoData clause_list;
    StringInfoData member_list;
} PsDescription;

/* meaning.c */
extern void ps_append_string(StringInfo json, const char *name, const char *value);
extern void ps_append_relids(StringInfo json, const char *name, const PsDescription *description, Relids relids);
extern void ps_append_texts(StringInfo json, const char *name, const PsDescription *description, List *expressions);

/* sources.c */
extern void ps_append_relation(StringInfo json, PsDescription *description, int index);

/* sets.c */
extern int ps_clause_number(PsDescription *description, RestrictInfo *clause);
extern void ps_append_sets(StringInfo json, PsDescription *description);

/* results.c */
extern void ps_append_result(StringInfo json, const PsDescription *description);

#pragma GCC visibility pop

#endif
