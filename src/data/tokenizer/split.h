/* Pre-tokenizers: a row of stages, each of which cuts a text into smaller ones and hands them to
 * the next. */
#ifndef EQI_TOKENIZER_SPLIT_H
#define EQI_TOKENIZER_SPLIT_H

#include "data/tokenizer/bpe.h"
#include "data/tokenizer/regex.h"

#define EQI_STAGES_MAX 16

typedef enum eqi_stage_kind {
    EQI_STAGE_PATTERN,
    EQI_STAGE_DIGITS,
    EQI_STAGE_PUNCTUATION,
    EQI_STAGE_WHITESPACE_SPLIT,
    EQI_STAGE_METASPACE,
    EQI_STAGE_BYTE_LEVEL /* the last one */
} eqi_stage_kind;

/* What becomes of the matches. */
typedef enum eqi_behavior {
    EQI_ISOLATED,
    EQI_REMOVED,
    EQI_MERGED_WITH_PREVIOUS,
    EQI_MERGED_WITH_NEXT,
    EQI_CONTIGUOUS
} eqi_behavior;

typedef enum eqi_prepend { EQI_PREPEND_ALWAYS, EQI_PREPEND_FIRST, EQI_PREPEND_NEVER } eqi_prepend;

typedef struct eqi_stage {
    eqi_stage_kind kind;
    eqi_regex *regex; /* PATTERN; BYTE_LEVEL: NULL when the text is one word */
    eqi_behavior behavior;
    bool invert;
    eqi_prepend prepend; /* METASPACE, and BYTE_LEVEL (ALWAYS or NEVER, a space) */
    char space[4];       /* METASPACE: what stands for a space */
    size_t space_length;
    bool split; /* METASPACE */
    eqi_bytes scratch;
} eqi_stage;

typedef struct eqi_split {
    eqi_stage stages[EQI_STAGES_MAX];
    size_t count;
} eqi_split;

void eqi_split_free(eqi_ctx *ctx, eqi_split *split);
void eqi_split_release(eqi_ctx *ctx, eqi_split *split); /* scratch memory */

/* Cuts a text and appends the ids of its words. at_start: the text begins where the whole input
 * begins. */
eqat_status eqi_split_encode(eqi_split *split, eqi_bpe *bpe, const char *s, size_t n, bool at_start,
                             eqi_ids *out);

#endif
