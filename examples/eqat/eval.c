#include "tool.h"

int command_eval(int argc, char **argv)
{
    static const char *const data_fields[] = {"seq_len", NULL};
    tool t = {0};
    const char *path, *text = NULL;
    eqat_model_options model_options;
    eqat_data_options data_options;
    eqat_eval_options eval_options;
    eqat_context_options_init(&t.context, sizeof t.context);
    eqat_model_options_init(&model_options, sizeof model_options);
    eqat_data_options_init(&data_options, sizeof data_options);
    eqat_eval_options_init(&eval_options, sizeof eval_options);
    const flag_own own[] = {
        {.name = "text",
         .value = "FILE",
         .help = "what to predict: .txt .jsonl .npy .u16 .u32",
         .text = &text},
        TOOL_FLAGS(&t),
    };
    const flag_group groups[] = {
        {"Windows", "data", "", &data_options, data_fields},
        {"Evaluation", "eval", "", &eval_options, NULL},
        {"Computing", "model", "", &model_options, NULL},
        {"Context", "context", "", &t.context, tool_context_fields},
    };
    const flag_set set = {
        "eval MODEL --text FILE [--seq-len N] ...",
        "Perplexity over consecutive, independent windows, as GPTQ and EfficientQAT measure it.",
        own,
        sizeof own / sizeof *own,
        groups,
        sizeof groups / sizeof *groups};
    int code = flags_parse(&set, argc, argv, &path);
    if (code >= 0) return code;
    if (!path || !text) {
        fprintf(stderr, "eqat: eval: expected a MODEL and --text FILE\n");
        return 2;
    }
    data_options.sampling = EQAT_SAMPLING_CONSECUTIVE;
    data_options.shuffle = false;
    data_options.train_size = 0;
    data_options.val_size = 0;
    eval_options.progress = tool_progress;
    eval_options.progress_user = &t;
    code = tool_open(&t, "eval");
    if (code) return code;
    eqat_model *model = NULL;
    eqat_data *data = NULL;
    eqat_model_info info = {.struct_size = sizeof info};
    eqat_perplexity result = {.struct_size = sizeof result};
    eqat_status st = eqat_model_open(t.ctx, &model, path, &model_options);
    if (st == EQAT_OK) st = eqat_model_inspect(model, &info);
    if (st == EQAT_OK)
        st = eqat_data_open(t.ctx, &data, text, eqat_model_tokenizer(model), info.vocab_size,
                            &data_options);
    if (st == EQAT_OK) st = eqat_eval_perplexity(model, data, &eval_options, &result);
    if (st == EQAT_OK) {
        tool_set(&t, "model", tool_text(path));
        tool_set(&t, "text", tool_text(text));
        tool_set(&t, "seq_len", json_integer(data_options.seq_len));
        tool_set(&t, "perplexity", tool_number(result.perplexity));
        tool_set(&t, "nll", tool_number(result.nll));
        tool_set(&t, "tokens", json_integer(result.tokens));
        tool_set(&t, "windows", json_integer(result.windows));
        tool_say(&t, "perplexity %.4f over %lld windows of %lld tokens", result.perplexity,
                 (long long)result.windows, (long long)data_options.seq_len);
    }
    eqat_data_free(data);
    eqat_model_free(model);
    return tool_close(&t, st);
}
