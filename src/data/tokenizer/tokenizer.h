/* The parts of a tokenizer, and how it comes to be: a definition in the layout of tokenizer.json,
 * read from such a file or put together from others, is built into the handle. One way to build
 * means one meaning. */
#ifndef EQI_TOKENIZER_TOKENIZER_H
#define EQI_TOKENIZER_TOKENIZER_H

#include <jansson.h>

#include "base/entry.h"
#include "eqat/tokenizer.h"

#include "data/tokenizer/added.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/decode.h"
#include "data/tokenizer/normalize.h"
#include "data/tokenizer/split.h"

typedef enum eqi_tokenizer_source {
    EQI_TOKENIZER_FOLDER,
    EQI_TOKENIZER_JSON,
    EQI_TOKENIZER_GGUF
} eqi_tokenizer_source;

struct eqat_tokenizer {
    eqi_ctx *ctx;
    eqi_handle handle;
    char *path; /* what it was opened from */
    eqi_tokenizer_source source;
    eqi_bpe bpe;
    eqi_added added;
    eqi_normalizers normalizers;
    eqi_split split;
    eqi_ids before, after; /* what the post-processor puts around a text */
    bool has_template;
    eqi_decoder decoder;
    int32_t vocab_size;
    int32_t bos, eos, unk;
    eqi_bytes repaired; /* scratch: a text that was not UTF-8 */
    eqi_ids ids;        /* results, lent to the caller */
    eqi_bytes text;
};

/* Opens a path as what it is said to be, whatever its name. */
eqat_status eqi_tokenizer_open_as(eqi_ctx *ctx, eqat_tokenizer **out, const char *path,
                                  eqi_tokenizer_source source);
/* Copies the files of a tokenizer, read or not, from a folder that has some of them. */
eqat_status eqi_tokenizer_copy(eqi_ctx *ctx, const char *from, const char *to, size_t limit);

/* What a folder or a GGUF file says. */
typedef struct eqi_definition {
    json_t *tokenizer;     /* as tokenizer.json */
    char *bos, *eos, *unk; /* texts; NULL: none */
    char *where;           /* names the file in messages */
} eqi_definition;

void eqi_definition_free(eqi_ctx *ctx, eqi_definition *d);

/* A folder with tokenizer.json, or vocab.json and merges.txt. EQAT_NOT_FOUND when it has neither.
 */
eqat_status eqi_define_folder(eqi_ctx *ctx, const char *dir, eqi_definition *d);
/* One tokenizer.json, with the special tokens that files beside it name. */
eqat_status eqi_define_json(eqi_ctx *ctx, const char *path, eqi_definition *d);
/* A GGUF file. config, when not NULL, receives what belongs into tokenizer_config.json. */
eqat_status eqi_define_gguf(eqi_ctx *ctx, const char *path, eqi_definition *d, json_t **config);

/* The two GGUF vocabularies, see define_gguf.c. */
typedef struct eqi_gguf eqi_gguf;
typedef struct eqi_gguf_vocab {
    eqi_ctx *ctx;
    const eqi_gguf *file;
    const char *path;
    int64_t count;
    json_t *vocab; /* text to id */
} eqi_gguf_vocab;
/* The merge list that the scores of a SentencePiece vocabulary amount to. */
eqat_status eqi_gguf_merges_from_scores(const eqi_gguf_vocab *v, json_t **merges);

/* A JSON file that holds an object. Broken JSON is EQAT_FORMAT with line and column. */
eqat_status eqi_json_read(eqi_ctx *ctx, const char *path, json_t **out);
/* The same for a file whose whole numbers may have any size (tokenizer_config.json says 10^30):
 * they become reals. */
eqat_status eqi_json_read_reals(eqi_ctx *ctx, const char *path, json_t **out);
eqat_status eqi_json_memory(eqi_ctx *ctx); /* EQAT_OUT_OF_MEMORY with its message */

/* The steps of a build. `where` names the file. */
eqat_status eqi_build_model(eqi_bpe *bpe, const json_t *tokenizer, bool byte_level,
                            const char *where);
eqat_status eqi_build_added(eqat_tokenizer *t, const json_t *tokenizer, const char *where);
eqat_status eqi_build_normalizer(eqi_ctx *ctx, eqi_normalizers *n, const json_t *json,
                                 const char *where);
eqat_status eqi_build_split(eqi_ctx *ctx, eqi_split *split, const json_t *json, const char *where);
eqat_status eqi_build_post(eqat_tokenizer *t, const json_t *json, const char *where);
eqat_status eqi_build_decoder(eqi_ctx *ctx, eqi_decoder *d, const json_t *json, const char *where);
eqat_status eqi_build(eqat_tokenizer *t, const eqi_definition *d);

/* Members of a component, checked. */
const char *eqi_json_type(const json_t *json); /* the "type" of a component; "" when it has none */
eqat_status eqi_json_bool(eqi_ctx *ctx, const json_t *json, const char *key, bool absent, bool *out,
                          const char *where);
eqat_status eqi_json_text(eqi_ctx *ctx, const json_t *json, const char *key, const char **out,
                          size_t *n, const char *where);
/* {"String": ...} or {"Regex": ...} under "pattern". */
eqat_status eqi_json_pattern(eqi_ctx *ctx, const json_t *json, const char **text, size_t *n,
                             bool *regex, const char *where);

#endif
