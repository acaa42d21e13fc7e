#include "job.h"
#include "rules.h"

/* One process trains on all samples: no rank and no world. */
static const char *const data_fields[] = {"train_size", "val_size", "seq_len",     "sampling",
                                          "shuffle",    "text_key", "skip_tokens", NULL};

int command_quantize(int argc, char **argv)
{
    job j;
    job_init(&j, argc, argv);
    const flag_own own[] = {
        OUT_FLAG(&j.out, "quantized"),
        FORCE_FLAG(&j.out),
        {.name = "calib",
         .value = "FILE",
         .help = "Block-AP trains on it: .txt .jsonl .npy .u16 .u32; - for text on standard input",
         .text = &j.calib_file},
        {.name = "e2e",
         .value = "FILE",
         .help =
             "E2E-QP trains on it (default: the one of --calib); of the same file it begins with "
             "what Block-AP leaves",
         .text = &j.e2e_file},
        {.name = "method",
         .value = "WORD",
         .help = "rtn, block-ap or efficientqat (default: efficientqat with --e2e, else block-ap)",
         .text = &j.method_name,
         .words = job_methods},
        {.name = "rule",
         .value = "PATTERN=BITS[,GROUP]",
         .help = "other bits and groups for linears whose name matches: '*.down_proj=4,32'; may be "
                 "repeated, the last match counts",
         .list = &j.rules},
        {.name = "skip",
         .value = "PATTERN",
         .help = "linears that stay as they are: '*.layers.0.*'; a rule, too",
         .list = &j.rules},
        {.name = "keep-ends",
         .help = "embeddings and head keep the source's type: refuse a format that has only wider "
                 "ones",
         .on = &j.keep_ends},
        RECIPE_FLAG(&j),
        TEACHER_FLAG(&j, "the MODEL itself, where the recipe is best"),
        CHECKPOINT_FLAGS(&j.kept),
        {.name = "no-judge",
         .help = "do not end with the perplexities of input, round to nearest and result on "
                 "validation samples",
         .on = &j.judge.off},
        TOOL_FLAGS(&j.t),
    };
    const flag_group groups[] = {
        {"Quantization", "quantizer", "", &j.quantizer, NULL},
        {"Bits by sensitivity", "allocate", "", &j.allocate, NULL, &j.calib_flag},
        {"Calibration data", "data", "", &j.data, data_fields, &j.calib_flag},
        {"Block-AP", "block_ap", "", &j.block_ap, NULL, &j.calib_flag},
        {"E2E-QP data", "data", "e2e-", &j.e2e_data, job_e2e_data_fields, &j.e2e_flag},
        {"E2E-QP", "e2e_qp", "e2e-", &j.e2e, NULL, &j.e2e_flag},
        {"Saving", "save", "", &j.save, NULL},
        {"Computing", "model", "", &j.model, NULL},
        {"Context", "context", "", &j.t.context, tool_context_fields},
    };
    const flag_set set = {
        "quantize MODEL --out DIR [--bits N] [--group-size N] [--calib FILE] "
        "[--e2e FILE] [--method WORD] ...",
        "Quantizes a Hugging Face folder or a GGUF file and writes a Hugging "
        "Face folder, by default in the gptq_v2 layout. Embeddings, head and norms keep their "
        "type; those that a GGUF file has in fewer than 16 bits become F16, for "
        "such a folder holds no others; with --format gguf they stay as they are.",
        own,
        sizeof own / sizeof *own,
        groups,
        sizeof groups / sizeof *groups};
    int code = flags_parse(&set, argc, argv, &j.path);
    if (code >= 0) return code;
    if (!j.path) return flags_refuse("quantize: expected a MODEL");
    if (!j.out.path || !*j.out.path)
        return flags_refuse("quantize: --out: expected a folder for the result");
    code = job_choose_method(&j);
    if (code < 0) code = rules_check(&j.rules);
    if (code < 0) code = checkpoint_check(&j.kept);
    if (code >= 0) return code;
    code = job_open(&j, "quantize", argc, argv);
    if (code) return code;
    tool_set(&j.t, "method", json_string(j.method_name));
    tool_set(&j.t, "bits", json_integer(j.quantizer.bits));
    tool_set(&j.t, "group_size", json_integer(j.quantizer.group_size));
    return job_close(&j, job_make_result(&j, job_run_quantize));
}
