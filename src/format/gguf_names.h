/* A GGUF file seen as a Hugging Face folder: names, row order and config.json, so that nothing
 * above this layer tells the two apart. */
#ifndef EQI_FORMAT_GGUF_NAMES_H
#define EQI_FORMAT_GGUF_NAMES_H

#include <jansson.h>

#include "format/gguf.h"

#define EQI_HF_NAME_MAX 96

/* "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight", block 3; "output.weight" ->
 * "lm_head.weight", block -1; for qwen3moe "blk.3.ffn_up_exps.weight" ->
 * "model.layers.3.mlp.experts.E.up_proj.weight" with E the expert asked for. False for names that
 * the architecture (llama, qwen2, qwen3, qwen3moe or gemma3) does not have. Distinct names give
 * distinct results. block may be NULL. */
bool eqi_gguf_hf_name(const char *architecture, const char *gguf_name, int64_t expert,
                      char out[EQI_HF_NAME_MAX], int64_t *block);

#define EQI_GGUF_NAME_MAX 64

/* How a tensor of a Hugging Face name lies in a file of the architecture. */
typedef struct eqi_gguf_place {
    char name[EQI_GGUF_NAME_MAX]; /* that all experts of a block share */
    bool interleaved;             /* the two halves of every head's rows */
    bool one_more;                /* the file holds 1 more than every value */
} eqi_gguf_place;

/* False: the architecture has no such tensor. */
bool eqi_gguf_find_place(const char *architecture, const char *hf_name, eqi_gguf_place *out);
/* The architecture of a model_type of config.json; NULL: none. */
const char *eqi_gguf_architecture(const char *model_type);

/* The tensors of g under Hugging Face names. llama files hold the rows of q and k (weights and
 * biases) with the two halves of each head interleaved; reads give them in Hugging Face's order.
 * gemma3 files hold 1 + weight of every norm; reads give the weight. The experts of a block, one
 * tensor in the file, are one entry each. rope_freqs.weight is not among the tensors: it is part of
 * *config, a new config.json object. Both may be read after g is closed. EQAT_UNSUPPORTED by name:
 * an architecture or tensor not known here, one part of a split file, experts outside qwen3moe,
 * partial rotary embeddings, rope scaling other than linear or by factors, numbers of heads that
 * differ between blocks. Factors become rope_type llama3 when its formula gives them, else longrope
 * with the factors and attention_factor 1. */
eqat_status eqi_gguf_open_hf(eqi_gguf *g, eqi_source **source, json_t **config);

/* The second half alone. */
eqat_status eqi_gguf_config(eqi_gguf *g, json_t **config);

/* What llama3 rope scaling would make of plain frequencies: the factor by which dimension pair i of
 * `pairs` divides its frequency theta^(-i/pairs). */
double eqi_llama3_factor(double theta, int64_t pairs, int64_t i, double factor, double low,
                         double high, double original);

#endif
