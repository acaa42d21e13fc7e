/** @file
 * libeqat: decoder language models.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_MODEL_H
#define EQAT_MODEL_H

#include "eqat/progress.h"
#include "eqat/quantizer.h"
#include "eqat/tape.h"
#include "eqat/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A decoder-only transformer read from a Hugging Face folder or a GGUF file, full precision or
 * quantized.  Full-precision blocks stay in the file and are read when needed; packed blocks stay
 * in memory.  The files must stay unchanged while the model is open.  The errors of reading weights
 * are EQAT_IO, EQAT_FORMAT (a file that has been changed) and EQAT_NUMERIC (a scale, or a value of
 * the embedding, the head or the final norm, that is not finite).  Families: Llama
 * 1/2/3/3.1/3.2, Mistral, Qwen2/2.5, Qwen3, Qwen3-MoE, Gemma 3 text, SmolLM2.  Threads: as the
 * context. */
typedef struct eqat_model eqat_model;

/** How a model computes. */
typedef struct eqat_model_options {
    size_t struct_size;    /**< set by eqat_model_options_init */
    int32_t compute_dtype; /**< eqat_dtype of activations: EQAT_BF16 (default) or EQAT_F32 */
    int32_t reserved;      /**< 0 */
} eqat_model_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_model_options_init(eqat_model_options *options, size_t struct_size);

/** path is a folder (config.json with model.safetensors, or shards and their index) or a .gguf
 * file. options may be NULL. A tokenizer of a kind that is not supported is left out, with a
 * warning in the log.  Errors: EQAT_NOT_FOUND, EQAT_IO, EQAT_FORMAT (damaged, a tensor missing or
 * of the wrong shape, a damaged tokenizer), EQAT_UNSUPPORTED (names the architecture or the
 * quantization method). */
EQAT_API eqat_status eqat_model_open(eqat_context *context, eqat_model **out, const char *path,
                                     const eqat_model_options *options);
EQAT_API void eqat_model_free(eqat_model *model); /**< NULL is fine */

/** What a model is. */
typedef struct eqat_model_info {
    size_t struct_size;        /**< set by the caller */
    const char *family;        /**< "llama", "mistral", "qwen2", "qwen3"; borrowed from the model */
    int64_t blocks;            /**< decoder blocks */
    int64_t hidden_size;       /**< H, elements of an activation */
    int64_t intermediate_size; /**< of the MLP; experts have their own */
    int64_t heads;             /**< query heads */
    int64_t kv_heads;          /**< key and value heads */
    int64_t head_dim;          /**< elements of a head */
    int64_t vocab_size;        /**< V, rows of the embedding */
    int64_t max_positions;     /**< what the configuration names */
    int64_t window;            /**< sliding window in tokens; 0: none */
    int64_t parameters;        /**< all elements */
    int64_t linear_parameters; /**< of the blocks' linears */
    int64_t bytes;             /**< of all tensors as stored (or as they would be saved) */
    double linear_bits;   /**< stored bits per parameter of the blocks' linears, scales and zero
                             points included */
    double rms_norm_eps;  /**< of all norms */
    double rope_theta;    /**< base of the rotary angles */
    bool tied_embeddings; /**< the head is the embedding */
    bool quantized;       /**< at least one linear is packed */
    uint8_t reserved[6];  /**< 0 */
    int64_t experts_per_token; /**< that work on a token in blocks with experts; 0: it has none */
} eqat_model_info;

/** Sizes of the model, quantized as it is now.  Nothing is read.  Errors: EQAT_INVALID_ARGUMENT
 * (struct_size is not set). */
EQAT_API eqat_status eqat_model_inspect(eqat_model *model, eqat_model_info *info);

/** One linear of a block. */
typedef struct eqat_linear_info {
    size_t struct_size;   /**< set by the caller */
    const char *name;     /**< "model.layers.0.self_attn.q_proj"; borrowed from the model */
    int64_t out_features; /**< N, rows of the weight */
    int64_t in_features;  /**< K */
    int32_t bits;         /**< 0: not quantized */
    int32_t group_size;   /**< inputs that share a scale; 0: not quantized */
    int64_t input;        /**< the first linear of the block that has the same inputs, from 0: q's
                               number for q, k and v, gate's for gate and up */
} eqat_linear_info;

/** Number of linears in a block (blocks need not be alike); 0 when there is no such block. */
EQAT_API int64_t eqat_model_linear_count(eqat_model *model, int64_t block);
/** Linear `index` of block `block`, both from 0.  Errors: EQAT_INVALID_ARGUMENT (no such linear,
 * struct_size is not set). */
EQAT_API eqat_status eqat_model_linear(eqat_model *model, int64_t block, int64_t index,
                                       eqat_linear_info *info);

/** The tokenizer that came with the model; borrowed; NULL when it has none. */
EQAT_API const eqat_tokenizer *eqat_model_tokenizer(const eqat_model *model);

/** Several sequences of equal length. */
typedef struct eqat_batch {
    size_t struct_size;      /**< set by eqat_batch_init */
    int64_t batch;           /**< B, sequences */
    int64_t time;            /**< T, tokens of a sequence */
    const int32_t *ids;      /**< host [B, T]; or NULL when embeddings is given */
    eqat_tensor *embeddings; /**< [B, T, H] in the compute dtype; NULL (default) */
    const int32_t
        *labels; /**< host [B, T]: the id that position t should predict, negative: masked;
                    NULL: ids shifted by one, the last of a sequence or segment masked */
    const int32_t *positions; /**< host [B, T]; NULL: 0..T-1 */
    const int32_t *segments;  /**< host [B, T]; NULL: one segment a sequence */
    bool keep_activations;    /**< of a recorded pass: those of all blocks stay in memory; default
                               * false:    backward computes them again, block by block */
    uint8_t reserved[7];      /**< 0 */
} eqat_batch;

/** Writes zeros and struct_size into the first `struct_size` bytes of *batch, and no further. */
EQAT_API void eqat_batch_init(eqat_batch *batch, size_t struct_size);

/** Logits F32 [B, T, V] of a batch.  tape: NULL for a pass without gradients; else the pass is
 * recorded while the tape records, and gradients reach what is trainable (eqat_model_parameter).
 * Backward reads the weights and computes each block again unless batch->keep_activations is set.
 * Labels do not matter.  Errors: EQAT_INVALID_ARGUMENT (the batch: a size, id, position, dtype or
 * shape out of range, neither ids nor embeddings), those of reading weights, EQAT_CANCELLED. */
EQAT_API eqat_status eqat_model_forward(eqat_model *model, eqat_tape *tape, const eqat_batch *batch,
                                        eqat_tensor **logits);
/** Mean cross-entropy F32 [1] over the batch's labels, without ever holding [B, T, V]; tape as in
 * eqat_model_forward.  count may be NULL; else F32 [1], the number of labels.  Errors: those of
 * eqat_model_forward, EQAT_INVALID_ARGUMENT (a label out of range, embeddings without labels). */
EQAT_API eqat_status eqat_model_loss(eqat_model *model, eqat_tape *tape, const eqat_batch *batch,
                                     eqat_tensor **loss, eqat_tensor **count);

/* ---- a pass in pieces, for training drivers of one's own: embed, every block in turn, then logits
 * gives bit for bit what eqat_model_forward gives.  All are recorded on `tape` while that records,
 * give a new tensor that the caller frees, and may be called while a job has the model.  Shapes: B
 * sequences of T tokens, H hidden_size, V vocab_size. ---- */

/** What enters the first block, [B, T, H] in the compute dtype: the embeddings of batch->ids, or
 * batch->embeddings as it is.  Labels, positions and segments do not matter here.  Errors:
 * EQAT_INVALID_ARGUMENT (an id, dtype or shape out of range, neither ids nor embeddings), those of
 * reading weights. */
EQAT_API eqat_status eqat_model_embed(eqat_model *model, eqat_tape *tape, const eqat_batch *batch,
                                      eqat_tensor **x);
/** x [B, T, H] in the compute dtype -> y of the same kind through block `block` (from 0).  Of
 * batch, which may be NULL (positions 0..T-1, one segment, recomputed), batch and time must be
 * those of x, and positions, segments and keep_activations count.  The block's weights are read for
 * the call; with keep_activations the tape keeps them, and what backward needs, until it is
 * cleared; without, it keeps x alone, and backward reads the weights and computes the block again,
 * for which the tape holds a reference on the model.  The gradients are the same, bit for bit.
 * Gradients reach x and what is trainable: see eqat_model_parameter.  Errors: EQAT_INVALID_ARGUMENT
 * (no such block; the shape or dtype of x, or another than the batch's; a position out of range),
 * those of reading weights, EQAT_CANCELLED. */
EQAT_API eqat_status eqat_model_block(eqat_model *model, eqat_tape *tape, int64_t block,
                                      eqat_tensor *x, const eqat_batch *batch, eqat_tensor **y);
/** Final norm and head: x [B, T, H] in the compute dtype -> logits F32 [B, n, V] of the last n =
 * last_n positions of every sequence; 0: of all.  Errors: EQAT_INVALID_ARGUMENT (the shape or dtype
 * of x; last_n outside 0..T), those of reading weights. */
EQAT_API eqat_status eqat_model_logits(eqat_model *model, eqat_tape *tape, eqat_tensor *x,
                                       int64_t last_n, eqat_tensor **logits);

/** A tensor of the model by name ("model.layers.0.self_attn.q_proj.weight"; ".scales", ".zeros" and
 * ".codes" of packed linears; "model.norm.weight").  Loads its block and keeps it in memory as F32
 * master (floats) or packed; borrowed until the model goes or the linear is quantized.  Marking it
 * trainable makes recorded passes compute its gradient.  While a Block-AP job has the block in work
 * this is the tensor as it was before begin; eqat_block_ap_parameter gives what trains.  Errors:
 * EQAT_NOT_FOUND, those of reading weights, EQAT_NUMERIC (a weight of the block is not finite). */
EQAT_API eqat_status eqat_model_parameter(eqat_model *model, const char *name, eqat_tensor **out);
/** Name of parameter `index`: embeddings, block after block, final norm, head.  NULL past the last;
 * borrowed from the model. */
EQAT_API const char *eqat_model_parameter_name(eqat_model *model, size_t index);

/** How linears are rounded to nearest. */
typedef struct eqat_rtn_options {
    size_t struct_size;        /**< set by eqat_rtn_options_init */
    eqat_progress_fn progress; /**< called before every linear and at the end; NULL (default): none
                                */
    void *progress_user;       /**< handed to progress */
} eqat_rtn_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_rtn_options_init(eqat_rtn_options *options, size_t struct_size);

/** Rounds every linear that the quantizer selects (RTN: scales rounded to fp16, then codes taken),
 * block after block.  options may be NULL; progress must not call the model.  On failure or
 * cancellation the blocks that were finished stay quantized.  Errors: EQAT_INVALID_ARGUMENT (a
 * group that does not divide the row, a row that is no multiple of 32, a linear that is quantized
 * already, a job that has the model; before anything is changed), those of reading weights,
 * EQAT_NUMERIC (a weight is not finite, or so large that fp16 does not hold its group's scale; all
 * weights of a linear are so small that its least scale rounds them to zero), EQAT_CANCELLED. */
EQAT_API eqat_status eqat_model_quantize_rtn(eqat_model *model, const eqat_quantizer *quantizer,
                                             const eqat_rtn_options *options);

/** Replaces the weight of linear `linear` of block `block` (as eqat_model_linear counts) by codes
 * from elsewhere, copied: codes U32 [out, in / 32 * bits] as of eqat_quantizer_pack, scales s F32
 * [out, in / group_size], rounded to fp16, zero points z U8 of the same shape.  Bits, 2 to 8, and
 * group size follow from the shapes; a bias, the norms and other linears stay.  Tensors of this
 * linear that eqat_model_parameter gave go.  Errors: EQAT_INVALID_ARGUMENT (no such linear, or one
 * that is never quantized, as routers are; a shape or dtype; a zero point above 2^bits - 1; a job
 * has the model), EQAT_NUMERIC (a scale that is not finite); the model is then as before. */
EQAT_API eqat_status eqat_model_set_linear(eqat_model *model, int64_t block, int64_t linear,
                                           const eqat_tensor *codes, const eqat_tensor *s,
                                           const eqat_tensor *z);

/** How a model is saved.  docs/formats.md tells each format and the engines that read it. */
typedef struct eqat_save_options {
    size_t struct_size;     /**< set by eqat_save_options_init */
    const char *format;     /**< a Hugging Face folder: "gptq_v2" (default), "gptq",
                                 "compressed-tensors", "auto-round", "mlx", "awq", "fp16"; one
                                 file: "gguf" */
    const char *gguf_type;  /**< of all quantized tensors in a GGUF file: "q2_0", "q4_0", "q5_0",
                                 "q8_0", "tq2_0"; NULL (default): for each the smallest that holds
                                 it exactly */
    int64_t max_shard_size; /**< bytes of tensors in one file of a folder, at most (a single larger
                                 tensor has a file of its own); default 0: all in one file */
    bool allow_lossy;       /**< GGUF: round what no type holds exactly; the largest error is told
                                 in the log; default false: refuse it */
    bool allow_asymmetric;  /**< gptq: write zero points that some engines misread; default false:
                                 refuse them */
    uint8_t reserved[6];    /**< 0 */
    eqat_progress_fn progress; /**< called before every block, what stands before and behind them,
                                  and at the end; NULL (default): none */
    void *progress_user;       /**< handed to progress */
} eqat_save_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_save_options_init(eqat_save_options *options, size_t struct_size);

/** Writes a Hugging Face folder, or one GGUF file when options->format is "gguf": quantized linears
 * in the layout of options->format (docs/formats.md), everything else as it came, config.json with
 * quantization_config, tokenizer files.  options may be NULL.  path is new or an empty folder, for
 * a file new; nothing is left there on failure.  A GGUF file has the same in its metadata; its
 * quantized weights have the same values, and it opens again with those of type Q2_0 quantized and
 * all others not.  The folder opens again and gives the same logits bit for bit (but "fp16",
 * whose weights are rounded): to that end, tensors that the caller trained through
 * eqat_model_parameter are first rounded, in memory too, to what the file stores (scales fp16,
 * others the dtype of the input).  While an E2E-QP job trains the model, memory stays as it is and
 * the folder holds what finishing now would give. Errors: those of eqat_model_check_save and
 * EQAT_EXISTS, before anything is written; EQAT_NUMERIC (a trained value is not finite),
 * EQAT_NOT_FOUND (no folder to put path into), EQAT_IO, EQAT_FORMAT (the model's files have
 * changed), EQAT_CANCELLED. */
EQAT_API eqat_status eqat_model_save(eqat_model *model, const char *path,
                                     const eqat_save_options *options);

/** Whether eqat_model_save with these options can hold the model: quantized as it is now, and what
 * is not, as `quantizer` would quantize it, unless that is NULL.  options may be NULL.  Nothing is
 * written.  Errors: EQAT_UNSUPPORTED, naming the formats that there are when options->format is
 * none of them, else the linear that the format cannot hold and why; EQAT_INVALID_ARGUMENT (an
 * option out of bounds; a group that does not divide a row). */
EQAT_API eqat_status eqat_model_check_save(eqat_model *model, const eqat_quantizer *quantizer,
                                           const eqat_save_options *options);

#ifdef __cplusplus
}
#endif
#endif
