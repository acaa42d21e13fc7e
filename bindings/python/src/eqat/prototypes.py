"""Every function of the library with its types, as include/eqat/*.h declares them.  A test holds
each one against the headers."""

from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_bool,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_void_p,
)
from typing import Any

from .handle import references
from .library import lib
from .structs import structs

status = enum = c_int
i32, i64, u32, size, f64, flag = c_int32, c_int64, c_uint32, c_size_t, c_double, c_bool
text = c_char_p
pointer = address = c_void_p
i32_array, i64_array = POINTER(c_int32), POINTER(c_int64)
i32_out, f64_out, size_out = POINTER(c_int32), POINTER(c_double), POINTER(c_size_t)
text_out = POINTER(c_void_p)  # bytes with a length: not c_char_p, which would end at a NUL
ids_out = POINTER(POINTER(c_int32))
out = handles = POINTER(c_void_p)

context, tensor, tape = references["context"], references["tensor"], references["tape"]
optimizer, quantizer = references["optimizer"], references["quantizer"]
tokenizer, data, model = references["tokenizer"], references["data"], references["model"]
block_ap, e2e_qp = references["block_ap"], references["e2e_qp"]
generation = references["generation"]


def struct(name: str) -> Any:
    return POINTER(structs[name])


log_fn = CFUNCTYPE(None, pointer, i32, text)
alloc_fn = CFUNCTYPE(pointer, pointer, size, size)
free_fn = CFUNCTYPE(None, pointer, pointer, size)
task_fn = CFUNCTYPE(None, pointer, size)
parallel_fn = CFUNCTYPE(None, pointer, size, task_fn, pointer)
progress_fn = CFUNCTYPE(i32, pointer, struct("progress"))
sample_fn = CFUNCTYPE(status, pointer, flag, i64, struct("sample"))
block_loss_fn = CFUNCTYPE(status, pointer, address, address, address, out)
e2e_loss_fn = CFUNCTYPE(status, pointer, address, address, struct("batch"), out)
reduce_fn = CFUNCTYPE(status, pointer, f64_out, size)
grad_fn = CFUNCTYPE(status, pointer, handles, size)
backward_fn = CFUNCTYPE(status, pointer, address, address, handles, i32)
segment_fn = CFUNCTYPE(status, address, pointer, handles, i32, out)
release_fn = CFUNCTYPE(None, pointer)
release_memory_fn = CFUNCTYPE(None, pointer, pointer)

FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "eqat_context_options_init": (None, [struct("context"), size]),
    "eqat_context_create": (status, [out, struct("context"), text, size]),
    "eqat_context_error": (text, [context]),
    "eqat_context_bytes": (size, [context]),
    "eqat_context_bytes_peak": (size, [context]),
    "eqat_context_device_bytes": (size, [context]),
    "eqat_context_device_bytes_peak": (size, [context]),
    "eqat_context_device_bytes_left": (size, [context]),
    "eqat_context_reset_peak": (None, [context]),
    "eqat_context_trim": (None, [context]),
    "eqat_context_threads": (i32, [context]),
    "eqat_context_cancel": (None, [context]),
    "eqat_context_reset_cancel": (None, [context]),
    "eqat_data_options_init": (None, [struct("data"), size]),
    "eqat_data_open": (status, [context, out, text, tokenizer, i64, struct("data")]),
    "eqat_data_from_tokens": (status, [context, out, i32_array, size, i64, struct("data")]),
    "eqat_data_from_records": (
        status,
        [context, out, sample_fn, pointer, i32, i64, i64, struct("data")],
    ),
    "eqat_data_train_size": (i64, [data]),
    "eqat_data_val_size": (i64, [data]),
    "eqat_data_seq_len": (i64, [data]),
    "eqat_data_token_count": (i64, [data]),
    "eqat_data_fields": (i32, [data]),
    "eqat_data_hidden_size": (i64, [data]),
    "eqat_data_sample": (status, [data, flag, i64, struct("sample")]),
    "eqat_data_order": (i64, [data, i64, i64]),
    "eqat_eval_options_init": (None, [struct("eval"), size]),
    "eqat_eval_perplexity": (status, [model, data, struct("eval"), struct("perplexity")]),
    "eqat_generation_create": (status, [model, out, i64]),
    "eqat_generation_feed": (status, [generation, i32_array, i64, i64, out]),
    "eqat_choose_options_init": (None, [struct("choose"), size]),
    "eqat_generation_choose": (status, [generation, tensor, struct("choose"), i32_array]),
    "eqat_generation_length": (i64, [generation]),
    "eqat_generation_rewind": (status, [generation, i64]),
    "eqat_model_options_init": (None, [struct("model"), size]),
    "eqat_model_open": (status, [context, out, text, struct("model")]),
    "eqat_model_inspect": (status, [model, struct("model_info")]),
    "eqat_model_linear_count": (i64, [model, i64]),
    "eqat_model_linear": (status, [model, i64, i64, struct("linear_info")]),
    "eqat_model_tokenizer": (address, [model]),
    "eqat_batch_init": (None, [struct("batch"), size]),
    "eqat_model_forward": (status, [model, tape, struct("batch"), out]),
    "eqat_model_loss": (status, [model, tape, struct("batch"), out, out]),
    "eqat_model_embed": (status, [model, tape, struct("batch"), out]),
    "eqat_model_block": (status, [model, tape, i64, tensor, struct("batch"), out]),
    "eqat_model_logits": (status, [model, tape, tensor, i64, out]),
    "eqat_model_parameter": (status, [model, text, out]),
    "eqat_model_parameter_name": (text, [model, size]),
    "eqat_model_quantize_rtn": (status, [model, quantizer, struct("rtn")]),
    "eqat_rtn_options_init": (None, [struct("rtn"), size]),
    "eqat_model_set_linear": (status, [model, i64, i64, tensor, tensor, tensor]),
    "eqat_save_options_init": (None, [struct("save"), size]),
    "eqat_model_save": (status, [model, text, struct("save")]),
    "eqat_model_check_save": (status, [model, quantizer, struct("save")]),
    "eqat_optimizer_options_init": (None, [struct("optimizer"), size]),
    "eqat_optimizer_create": (status, [context, out, struct("optimizer")]),
    "eqat_optimizer_add_group": (status, [optimizer, f64, i32_out]),
    "eqat_optimizer_add": (status, [optimizer, i32, tensor]),
    "eqat_optimizer_zero_grad": (None, [optimizer]),
    "eqat_optimizer_set_grad_callback": (None, [optimizer, grad_fn, pointer]),
    "eqat_optimizer_step": (status, [optimizer, f64]),
    "eqat_optimizer_backward": (status, [optimizer, tape, tensor]),
    "eqat_optimizer_lr_factor": (f64, [optimizer, i64]),
    "eqat_optimizer_steps": (i64, [optimizer]),
    "eqat_optimizer_grad_norm": (status, [optimizer, f64_out]),
    "eqat_options_set": (status, [context, text, pointer, text, text]),
    "eqat_recipe_take": (status, [context, text, text, pointer]),
    "eqat_quantizer_options_init": (None, [struct("quantizer"), size]),
    "eqat_quantizer_create": (status, [context, out, struct("quantizer")]),
    "eqat_quantizer_add_rule": (status, [quantizer, text, struct("quantizer")]),
    "eqat_allocate_options_init": (None, [struct("allocate"), size]),
    "eqat_quantizer_allocate": (status, [quantizer, model, data, struct("allocate")]),
    "eqat_quantizer_lookup": (flag, [quantizer, text, struct("quantizer")]),
    "eqat_quantizer_init": (status, [quantizer, tensor, tensor, flag, out, out]),
    "eqat_quantizer_freeze": (status, [quantizer, tensor, tensor, tensor, out, out, out]),
    "eqat_quantizer_pack": (status, [quantizer, tensor, tensor, tensor, out]),
    "eqat_quantizer_quantize": (status, [quantizer, tensor, out, out, out]),
    "eqat_quantizer_dequantize": (status, [quantizer, tensor, tensor, tensor, enum, out]),
    "eqat_tape_create": (status, [context, out]),
    "eqat_tape_clear": (None, [tape]),
    "eqat_tape_set_recording": (None, [tape, flag]),
    "eqat_tape_backward": (status, [tape, tensor, f64]),
    "eqat_tape_backward_from": (status, [tape, tensor, tensor]),
    "eqat_op_linear": (status, [tape, tensor, tensor, tensor, out]),
    "eqat_op_fakequant_linear": (
        status,
        [tape, tensor, tensor, tensor, tensor, tensor, quantizer, out],
    ),
    "eqat_op_packed_linear": (status, [tape, tensor, tensor, tensor, tensor, tensor, out]),
    "eqat_op_fakequant": (status, [tape, tensor, tensor, tensor, quantizer, enum, out]),
    "eqat_op_embedding": (status, [tape, tensor, tensor, enum, out]),
    "eqat_op_rmsnorm": (status, [tape, tensor, tensor, f64, f64, out]),
    "eqat_op_rope": (status, [tape, tensor, tensor, tensor, tensor, out]),
    "eqat_attention_options_init": (None, [struct("attention"), size]),
    "eqat_op_attention": (status, [tape, tensor, tensor, tensor, tensor, struct("attention"), out]),
    "eqat_op_gated": (status, [tape, tensor, tensor, enum, out]),
    "eqat_op_route": (status, [tape, tensor, i64, flag, out, out]),
    "eqat_op_gather_rows": (status, [tape, tensor, tensor, out]),
    "eqat_op_scatter_rows": (status, [tape, out, tensor, tensor, tensor, tensor]),
    "eqat_op_add": (status, [tape, tensor, tensor, out]),
    "eqat_op_mul": (status, [tape, tensor, tensor, out]),
    "eqat_op_scale": (status, [tape, tensor, f64, out]),
    "eqat_op_reshape": (status, [tape, tensor, i32, i64_array, out]),
    "eqat_op_slice": (status, [tape, tensor, i32, i64, i64, out]),
    "eqat_op_transpose": (status, [tape, tensor, i32, i32, out]),
    "eqat_op_cast": (status, [tape, tensor, enum, out]),
    "eqat_op_mse": (status, [tape, tensor, tensor, out]),
    "eqat_op_kl_divergence": (status, [tape, tensor, tensor, tensor, out]),
    "eqat_op_linear_cross_entropy": (status, [tape, tensor, tensor, tensor, out, out]),
    "eqat_op_custom": (
        status,
        [tape, text, handles, i32, tensor, backward_fn, release_fn, pointer],
    ),
    "eqat_tape_add_grad": (status, [tape, tensor, tensor]),
    "eqat_tape_checkpoint": (status, [tape, segment_fn, pointer, release_fn, handles, i32, out]),
    "eqat_dtype_size": (size, [enum]),
    "eqat_dtype_name": (text, [enum]),
    "eqat_tensor_create": (status, [context, out, enum, i32, i64_array, pointer]),
    "eqat_tensor_wrap": (
        status,
        [context, out, enum, i32, i64_array, i64_array, pointer, size, release_memory_fn, pointer],
    ),
    "eqat_tensor_ref": (address, [tensor]),
    "eqat_tensor_dtype": (enum, [tensor]),
    "eqat_tensor_ndim": (i32, [tensor]),
    "eqat_tensor_size": (i64, [tensor, i32]),
    "eqat_tensor_stride": (i64, [tensor, i32]),
    "eqat_tensor_count": (i64, [tensor]),
    "eqat_tensor_data": (address, [tensor]),
    "eqat_tensor_reshape": (status, [tensor, i32, i64_array, out]),
    "eqat_tensor_slice": (status, [tensor, i32, i64, i64, out]),
    "eqat_tensor_write": (status, [tensor, pointer, size]),
    "eqat_tensor_read": (status, [tensor, pointer, size]),
    "eqat_tensor_fill": (status, [tensor, f64]),
    "eqat_tensor_copy": (status, [tensor, tensor]),
    "eqat_tensor_set_requires_grad": (status, [tensor, flag]),
    "eqat_tensor_requires_grad": (flag, [tensor]),
    "eqat_tensor_grad": (address, [tensor]),
    "eqat_tensor_zero_grad": (None, [tensor]),
    "eqat_tokenizer_open": (status, [context, out, text]),
    "eqat_tokenizer_encode": (status, [tokenizer, text, size, u32, ids_out, size_out]),
    "eqat_tokenizer_decode": (status, [tokenizer, i32_array, size, u32, text_out, size_out]),
    "eqat_tokenizer_vocab_size": (i32, [tokenizer]),
    "eqat_tokenizer_token_text": (text, [tokenizer, i32, size_out]),
    "eqat_tokenizer_token_id": (i32, [tokenizer, text, size]),
    "eqat_tokenizer_is_special": (flag, [tokenizer, i32]),
    "eqat_tokenizer_bos": (i32, [tokenizer]),
    "eqat_tokenizer_eos": (i32, [tokenizer]),
    "eqat_tokenizer_unk": (i32, [tokenizer]),
    "eqat_tokenizer_save": (status, [tokenizer, text]),
    "eqat_tokenizer_release_buffers": (None, [tokenizer]),
    "eqat_block_ap_options_init": (None, [struct("block_ap"), size]),
    "eqat_block_ap_create": (status, [model, out, quantizer, data, struct("block_ap")]),
    "eqat_block_ap_block": (i64, [block_ap]),
    "eqat_block_ap_begin": (status, [block_ap]),
    "eqat_block_ap_steps": (i64, [block_ap]),
    "eqat_block_ap_stages": (i64, [block_ap, i64]),
    "eqat_block_ap_stage": (i64, [block_ap]),
    "eqat_block_ap_step": (status, [block_ap, i64, i64, f64_out]),
    "eqat_block_ap_forward": (status, [block_ap, tape, i64, i64, out, out]),
    "eqat_block_ap_validate": (status, [block_ap, f64_out]),
    "eqat_block_ap_finish": (status, [block_ap]),
    "eqat_block_ap_abandon": (None, [block_ap]),
    "eqat_block_ap_optimizer": (address, [block_ap]),
    "eqat_block_ap_parameter": (address, [block_ap, text]),
    "eqat_block_ap_epoch": (status, [block_ap, i64, i64, struct("epoch_report")]),
    "eqat_block_ap_stage_report": (status, [block_ap, i64, i64, struct("stage_report")]),
    "eqat_block_ap_run": (status, [block_ap]),
    "eqat_block_ap_save": (status, [block_ap, text]),
    "eqat_block_ap_load": (status, [block_ap, text]),
    "eqat_e2e_qp_options_init": (None, [struct("e2e_qp"), size]),
    "eqat_e2e_qp_create": (status, [model, out, data, struct("e2e_qp")]),
    "eqat_e2e_qp_check": (status, [model, quantizer, data, struct("e2e_qp")]),
    "eqat_e2e_qp_steps": (i64, [e2e_qp]),
    "eqat_e2e_qp_accumulate": (status, [e2e_qp, i64, i64, f64_out]),
    "eqat_e2e_qp_micro_steps": (i64, [e2e_qp, i64]),
    "eqat_e2e_qp_step": (status, [e2e_qp]),
    "eqat_e2e_qp_optimizer": (address, [e2e_qp]),
    "eqat_e2e_qp_finish": (status, [e2e_qp]),
    "eqat_e2e_qp_run": (status, [e2e_qp]),
    "eqat_e2e_qp_save": (status, [e2e_qp, text]),
    "eqat_e2e_qp_load": (status, [e2e_qp, text]),
    "eqat_e2e_qp_loss": (f64, [e2e_qp, i64]),
    "eqat_e2e_qp_validate": (status, [e2e_qp, f64_out]),
    "eqat_e2e_qp_val_loss": (f64, [e2e_qp, i64]),
    "eqat_e2e_qp_stage_report": (status, [e2e_qp, struct("stage_report")]),
    "eqat_block_ap_quantize": (status, [model, quantizer, data, struct("block_ap")]),
    "eqat_e2e_qp_train": (status, [model, data, struct("e2e_qp")]),
}

for _name, (_restype, _argtypes) in FUNCTIONS.items():
    try:
        _function = getattr(lib, _name)
    except AttributeError:
        raise ImportError(f"libeqat: {_name} is missing: the library is older than this package")
    _function.restype, _function.argtypes = _restype, _argtypes
