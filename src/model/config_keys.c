#include "model/config_keys.h"

#include <stdio.h>
#include <string.h>

#include "format/json_text.h"

#define LIST_TEXT 512

/* What training, generation, other software and the history of a file leave behind, whatever the
 * value. */
static const char *const harmless[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "_sliding_window_pattern",
    "architectures",
    "attention_dropout",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "is_llama_config",
    "label2id",
    "layer_types",
    "length_penalty",
    "max_length",
    "max_window_layers",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "quantization", /* MLX's */
    "quantization_config",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_sliding_window",
};

/* What nothing here computes: absent, null, false, empty, or the one number that changes nothing.
 */
static const struct {
    const char *key;
    double neutral;
} refused[] = {
    {"add_cross_attention", 0},
    {"attention_multiplier", -1},
    {"attn_logit_softcapping", -1},
    {"clip_qkv", -1},
    {"embedding_multiplier", 1},
    {"final_logit_softcapping", -1},
    {"logits_scaling", 1},
    {"num_shared_experts", 0},
    {"n_shared_experts", 0},
    {"pruned_heads", -1},
    {"qk_layernorm", 0},
    {"residual_multiplier", 1},
    {"rope_interleaved", 0},
    {"shared_expert_intermediate_size", 0},
    {"use_bidirectional_attention", 0},
    {"use_mrope", 0},
    {"use_qk_norm", 0},
};

void eqi_keys_add(eqi_keys *keys, const char *name)
{
    for (size_t i = 0; i < keys->n; i++)
        if (!strcmp(keys->names[i], name)) return;
    if (keys->n < EQI_COUNT(keys->names)) keys->names[keys->n++] = name;
}

static bool is_read(const eqi_keys *keys, const char *name)
{
    for (size_t i = 0; i < keys->n; i++)
        if (!strcmp(keys->names[i], name)) return true;
    return false;
}

static bool is_harmless(const char *key)
{
    for (size_t i = 0; i < EQI_COUNT(harmless); i++)
        if (!strcmp(harmless[i], key)) return true;
    return false;
}

static bool is_neutral(const json_t *value, double neutral)
{
    if (json_is_null(value) || json_is_false(value)) return true;
    if (json_is_number(value)) return json_number_value(value) == neutral;
    return (json_is_object(value) && !json_object_size(value)) ||
        (json_is_array(value) && !json_array_size(value));
}

/* *known: it stands in the table. */
static eqat_status check_refused(eqi_ctx *ctx, const char *path, const char *where, const char *key,
                                 const json_t *value, bool *known)
{
    char text[EQI_JSON_TEXT];
    *known = false;
    for (size_t i = 0; i < EQI_COUNT(refused) && !*known; i++) {
        if (strcmp(refused[i].key, key) != 0) continue;
        *known = true;
        if (!is_neutral(value, refused[i].neutral))
            return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: %s%s: found %s, expected null", path, where,
                            key, eqi_json_text(value, text));
    }
    return EQAT_OK;
}

eqat_status eqi_keys_check_rest(eqi_ctx *ctx, const json_t *object, const eqi_keys *read,
                                const char *path, const char *where)
{
    char list[LIST_TEXT] = "";
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        bool known;
        EQI_RETURN_IF(check_refused(ctx, path, where, key, value, &known));
        if (known || is_read(read, key) || is_harmless(key)) continue;
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s%s", at ? ", " : "", where, key);
    }
    if (*list) eqi_log(ctx, EQI_LOG_INFO, "%s: keys without a meaning here: %s", path, list);
    return EQAT_OK;
}
