#include "input.h"
#include "record.h"
#include "tool.h"

static void tell(tool *t, const char *model, const char *text, int64_t seq_len,
                 const eqat_perplexity *r)
{
    json_t *event =
        json_pack("{s:s,s:o,s:o,s:I,s:I,s:I,s:o,s:o}", "event", "eval", "model", tool_text(model),
                  "file", tool_text(text), "seq_len", (json_int_t)seq_len, "windows",
                  (json_int_t)r->windows, "tokens", (json_int_t)r->tokens, "nll",
                  tool_number(r->nll), "perplexity", tool_number(r->perplexity));
    tool_event(t, event);
    tool_set(t, "model", tool_text(model));
    tool_set(t, "text", tool_text(text));
    tool_set(t, "seq_len", json_integer(seq_len));
    tool_set(t, "perplexity", tool_number(r->perplexity));
    tool_set(t, "nll", tool_number(r->nll));
    tool_set(t, "tokens", json_integer(r->tokens));
    tool_set(t, "windows", json_integer(r->windows));
    tool_say(t, "perplexity %.4f over %lld windows of %lld tokens", r->perplexity,
             (long long)r->windows, (long long)seq_len);
}

int command_eval(int argc, char **argv)
{
    static const char *const data_fields[] = {"seq_len", "text_key", NULL};
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
         .help = "what to predict: .txt .jsonl .npy .u16 .u32; - for text on standard input",
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
    if (!path || !text) return flags_refuse("eval: expected a MODEL and --text FILE");
    data_options.sampling = EQAT_SAMPLING_CONSECUTIVE;
    data_options.shuffle = false;
    data_options.train_size = 0;
    data_options.val_size = 0;
    eval_options.progress = tool_progress;
    eval_options.progress_user = &t;
    input in;
    t.run = record_new("eval", argc, argv);
    json_object_set_new(t.run, "model", tool_text(path));
    record_options(t.run, "data", "data", &data_options);
    record_options(t.run, "eval", "eval", &eval_options);
    record_options(t.run, "model", "model", &model_options);
    code = input_take(&t, &in, "text", text) ? tool_open(&t) : tool_give_up(&t);
    if (code) {
        input_release(&in);
        return code;
    }
    eqat_model *model = NULL;
    eqat_data *data = NULL;
    eqat_perplexity result = {.struct_size = sizeof result};
    eqat_status st = eqat_model_open(t.ctx, &model, path, &model_options);
    if (st == EQAT_OK) st = input_open(&t, &in, model, &data_options, &data);
    eqat_model_info info = {.struct_size = sizeof info};
    if (st == EQAT_OK) st = eqat_model_inspect(model, &info);
    t.blocks = info.blocks;
    if (st == EQAT_OK) tool_warn_context(&t, model, data_options.seq_len);
    tool_begin_phase(&t, "eval");
    if (st == EQAT_OK) st = eqat_eval_perplexity(model, data, &eval_options, &result);
    if (st == EQAT_OK) tell(&t, path, text, data_options.seq_len, &result);
    eqat_data_free(data);
    eqat_model_free(model);
    input_release(&in);
    return tool_close(&t, st);
}
