#include "eqat/eqat.h"

/* A public struct has no padding behind its last member: a new one would move in there, where
 * callers of older headers leave anything. */
#define TAIL(T, last) \
    _Static_assert(offsetof(T, last) + sizeof(((T *)0)->last) == sizeof(T), #T " has a whole tail")

TAIL(eqat_allocate_options, progress_user);
TAIL(eqat_attention_options, reserved);
TAIL(eqat_batch, reserved);
TAIL(eqat_block_ap_options, decay_ratio);
TAIL(eqat_choose_options, top_p);
TAIL(eqat_context_options, device_memory);
TAIL(eqat_data_options, held_tokens);
TAIL(eqat_e2e_qp_options, lr_unit);
TAIL(eqat_epoch_report, val_loss);
TAIL(eqat_eval_options, progress_user);
TAIL(eqat_field, default_string);
TAIL(eqat_linear_info, input);
TAIL(eqat_model_info, experts_per_token);
TAIL(eqat_model_options, reserved);
TAIL(eqat_optimizer_options, decay_ratio);
TAIL(eqat_perplexity, windows);
TAIL(eqat_progress, batches);
TAIL(eqat_quantizer_options, zero_point);
TAIL(eqat_rtn_options, progress_user);
TAIL(eqat_sample, embeddings);
TAIL(eqat_save_options, progress_user);
TAIL(eqat_stage_report, step);
