#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

static const char *const data_fields[] = {"train_size", "val_size", "seq_len", "sampling",
                                          "shuffle",    "rank",     "world",   NULL};
static const char *const e2e_data_fields[] = {"train_size", "seq_len", NULL};

typedef enum method { RTN, BLOCK_AP, EFFICIENTQAT } method;

typedef struct job {
    tool t;
    eqat_model_options model;
    eqat_quantizer_options quantizer;
    eqat_data_options data, e2e_data;
    eqat_block_ap_options block_ap;
    eqat_e2e_qp_options e2e;
    const char *path, *out, *calib, *e2e_file, *method_name;
    const char *calib_flag, *e2e_flag; /* one given of the many about Block-AP, about E2E-QP */
    method method;
} job;

static void init(job *j)
{
    *j = (job){0};
    eqat_context_options_init(&j->t.context, sizeof j->t.context);
    eqat_model_options_init(&j->model, sizeof j->model);
    eqat_quantizer_options_init(&j->quantizer, sizeof j->quantizer);
    eqat_data_options_init(&j->data, sizeof j->data);
    eqat_data_options_init(&j->e2e_data, sizeof j->e2e_data);
    eqat_block_ap_options_init(&j->block_ap, sizeof j->block_ap);
    eqat_e2e_qp_options_init(&j->e2e, sizeof j->e2e);
    /* The paper's setting of E2E-QP: longer samples, no validation. */
    j->e2e_data.seq_len = 4096;
    j->e2e_data.val_size = 0;
}

static int usage_error(const char *text)
{
    fprintf(stderr, "eqat: %s\n", text);
    return 2;
}

/* The windows of E2E-QP are drawn like those of the calibration. */
static void share_sampling(job *j)
{
    j->e2e_data.sampling = j->data.sampling;
    j->e2e_data.shuffle = j->data.shuffle;
    j->e2e_data.rank = j->data.rank;
    j->e2e_data.world = j->data.world;
}

/* What would be ignored is told. */
static int unused_flag(const job *j, const char *flag, const char *expected)
{
    fprintf(stderr, "eqat: %.*s: found it with --method %s, expected %s\n", (int)strcspn(flag, "="),
            flag, j->method_name, expected);
    return 2;
}

static int choose_method(job *j)
{
    const char *calib = j->calib ? "--calib" : j->calib_flag,
               *e2e = j->e2e_file ? "--e2e" : j->e2e_flag;
    const char *name = j->method_name ? j->method_name : j->e2e_file ? "efficientqat" : "block-ap";
    j->method_name = name;
    if (!strcmp(name, "rtn"))
        j->method = RTN;
    else if (!strcmp(name, "block-ap"))
        j->method = BLOCK_AP;
    else if (!strcmp(name, "efficientqat"))
        j->method = EFFICIENTQAT;
    else
        return usage_error("--method: expected rtn, block-ap or efficientqat");
    if (j->method == RTN && calib) return unused_flag(j, calib, "block-ap or efficientqat");
    if (j->method != EFFICIENTQAT && e2e) return unused_flag(j, e2e, "efficientqat");
    if (j->method != RTN && !j->calib)
        return usage_error("--calib: expected a file of calibration text or tokens");
    if (!j->e2e_file) j->e2e_file = j->calib;
    return -1;
}

static bool is_empty_folder(const char *path)
{
    DIR *d = opendir(path);
    if (!d) return false;
    bool empty = true;
    for (struct dirent *e; empty && (e = readdir(d));)
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
    closedir(d);
    return empty;
}

/* What saving would refuse after hours of training is refused before them: an empty folder takes
 * the way that the result will. */
static eqat_status check_out(tool *t, const char *out)
{
    struct stat sb;
    char probe[4096];
    bool there = lstat(out, &sb) == 0;
    if (there && !(S_ISDIR(sb.st_mode) && is_empty_folder(out)))
        return tool_fail(t, EQAT_EXISTS, "%s: found %s, expected a new or empty folder", out,
                         S_ISDIR(sb.st_mode) ? "a folder that is not empty"
                                             : "something that is not a folder");
    int length = (int)strlen(out);
    while (length > 1 && out[length - 1] == '/') length--;
    snprintf(probe, sizeof probe, "%.*s.partial-%ld", length, out, (long)getpid());
    if (mkdir(probe, 0777) != 0)
        return tool_fail(t, EQAT_IO, "%s: cannot create the output folder: %s", out,
                         strerror(errno));
    int failed = there && rename(probe, out) != 0 ? errno : 0;
    if (!there || failed) rmdir(probe);
    return failed
        ? tool_fail(t, EQAT_IO, "%s: cannot put a folder in its place: %s", out, strerror(failed))
        : EQAT_OK;
}

static eqat_status check_bits(job *j)
{
    int32_t bits = j->quantizer.bits;
    if (bits < 5 || bits == 8) return EQAT_OK;
    return tool_fail(&j->t, EQAT_UNSUPPORTED,
                     "--bits: found %d, expected 2, 3, 4 or 8: no engine reads others", bits);
}

/* The same for shapes: zero points fill whole words across the outputs of a linear. */
static eqat_status check_shapes(job *j, eqat_model *model)
{
    int32_t bits = j->quantizer.bits;
    int64_t step = bits == 3 ? 32 : 32 / bits;
    eqat_linear_info l = {.struct_size = sizeof l};
    for (int64_t b = 0; eqat_model_linear_count(model, b) > 0; b++)
        for (int64_t i = 0;
             i < eqat_model_linear_count(model, b) && eqat_model_linear(model, b, i, &l) == EQAT_OK;
             i++)
            if (l.out_features % step)
                return tool_fail(&j->t, EQAT_UNSUPPORTED,
                                 "%s: found %lld outputs, expected a multiple of %lld at %d bits",
                                 l.name, (long long)l.out_features, (long long)step, bits);
    return EQAT_OK;
}

static eqat_status open_data(job *j, const eqat_model *model, const char *path,
                             const eqat_data_options *options, eqat_data **out)
{
    eqat_model_info info = {.struct_size = sizeof info};
    eqat_status st = eqat_model_inspect((eqat_model *)model, &info);
    if (st != EQAT_OK) return st;
    return eqat_data_open(j->t.ctx, out, path, eqat_model_tokenizer(model), info.vocab_size,
                          options);
}

static void report_blocks(job *j, const eqat_block_ap *ap)
{
    json_t *blocks = json_array();
    for (int64_t b = 0; b < eqat_block_ap_block(ap); b++) {
        json_t *epochs = json_array();
        eqat_epoch_report r = {.struct_size = sizeof r};
        for (int64_t e = 0; eqat_block_ap_epoch(ap, b, e, &r) == EQAT_OK; e++)
            json_array_append_new(epochs,
                                  json_pack("{s:o,s:o}", "train_loss", tool_number(r.train_loss),
                                            "val_loss", tool_number(r.val_loss)));
        json_array_append_new(blocks,
                              json_pack("{s:I,s:o}", "block", (json_int_t)b, "epochs", epochs));
    }
    tool_set(&j->t, "blocks", blocks);
}

static eqat_status run_block_ap(job *j, eqat_model *model)
{
    eqat_quantizer *quantizer = NULL;
    eqat_data *data = NULL;
    eqat_block_ap *ap = NULL;
    eqat_status st = eqat_quantizer_create(j->t.ctx, &quantizer, &j->quantizer);
    if (st == EQAT_OK && j->method == RTN) st = eqat_model_quantize_rtn(model, quantizer);
    if (st == EQAT_OK && j->method != RTN) {
        st = open_data(j, model, j->calib, &j->data, &data);
        if (st == EQAT_OK) st = eqat_block_ap_create(model, &ap, quantizer, data, &j->block_ap);
        if (st == EQAT_OK) st = eqat_block_ap_run(ap);
        if (st == EQAT_OK) report_blocks(j, ap);
    }
    eqat_block_ap_free(ap);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    return st;
}

static eqat_status run_e2e(job *j, eqat_model *model)
{
    eqat_data *data = NULL;
    eqat_e2e_qp *e2e = NULL;
    eqat_status st = open_data(j, model, j->e2e_file, &j->e2e_data, &data);
    if (st == EQAT_OK) st = eqat_e2e_qp_create(model, &e2e, data, &j->e2e);
    if (st == EQAT_OK) st = eqat_e2e_qp_run(e2e);
    if (st == EQAT_OK) {
        json_t *losses = json_array();
        for (int64_t i = 0; i < eqat_e2e_qp_steps(e2e); i++)
            json_array_append_new(losses, tool_number(eqat_e2e_qp_loss(e2e, i)));
        tool_set(
            &j->t, "e2e",
            json_pack("{s:I,s:o}", "steps", (json_int_t)eqat_e2e_qp_steps(e2e), "loss", losses));
    }
    eqat_e2e_qp_free(e2e);
    eqat_data_free(data);
    return st;
}

static eqat_status save(job *j, eqat_model *model)
{
    eqat_status st = eqat_model_save(model, j->out);
    eqat_model_info info = {.struct_size = sizeof info};
    if (st == EQAT_OK) st = eqat_model_inspect(model, &info);
    if (st != EQAT_OK) return st;
    tool_set(&j->t, "model", tool_text(j->path));
    tool_set(&j->t, "out", tool_text(j->out));
    tool_set(&j->t, "bits_per_linear_parameter", json_real(info.linear_bits));
    tool_set(&j->t, "bytes", json_integer(info.bytes));
    tool_say(
        &j->t,
        "%s: %.2f bits per parameter of the linears, %.1f MB in all, %.0f s, peak memory %.0f MB",
        j->out, info.linear_bits, (double)info.bytes / 1e6, tool_seconds() - j->t.started,
        (double)tool_peak_rss() / 1e6);
    return EQAT_OK;
}

int command_quantize(int argc, char **argv)
{
    static const char *const methods[] = {"rtn", "block-ap", "efficientqat", NULL};
    job j;
    init(&j);
    const flag_own own[] = {
        {.name = "out",
         .value = "DIR",
         .help = "where the quantized model goes: a new or empty folder",
         .text = &j.out},
        {.name = "calib",
         .value = "FILE",
         .help = "Block-AP trains on it: .txt .jsonl .npy .u16 .u32",
         .text = &j.calib},
        {.name = "e2e",
         .value = "FILE",
         .help = "E2E-QP trains on it (default: the one of --calib)",
         .text = &j.e2e_file},
        {.name = "method",
         .value = "WORD",
         .help = "rtn, block-ap or efficientqat (default: efficientqat with --e2e, else block-ap)",
         .text = &j.method_name,
         .words = methods},
        TOOL_FLAGS(&j.t),
    };
    const flag_group groups[] = {
        {"Quantization", "quantizer", "", &j.quantizer, NULL},
        {"Calibration data", "data", "", &j.data, data_fields, &j.calib_flag},
        {"Block-AP", "block_ap", "", &j.block_ap, NULL, &j.calib_flag},
        {"E2E-QP data", "data", "e2e-", &j.e2e_data, e2e_data_fields, &j.e2e_flag},
        {"E2E-QP", "e2e_qp", "e2e-", &j.e2e, NULL, &j.e2e_flag},
        {"Computing", "model", "", &j.model, NULL},
        {"Context", "context", "", &j.t.context, tool_context_fields},
    };
    const flag_set set = {"quantize MODEL --out DIR [--bits N] [--group-size N] [--calib FILE] "
                          "[--e2e FILE] [--method WORD] ...",
                          "Quantizes a Hugging Face folder or a GGUF file and writes a Hugging "
                          "Face folder in the gptq_v2 layout.",
                          own,
                          sizeof own / sizeof *own,
                          groups,
                          sizeof groups / sizeof *groups};
    int code = flags_parse(&set, argc, argv, &j.path);
    if (code >= 0) return code;
    if (!j.path) return usage_error("quantize: expected a MODEL");
    if (!j.out || !*j.out) return usage_error("quantize: --out: expected a folder for the result");
    code = choose_method(&j);
    if (code >= 0) return code;
    share_sampling(&j);
    j.block_ap.progress = j.e2e.progress = tool_progress;
    j.block_ap.progress_user = j.e2e.progress_user = &j.t;
    code = tool_open(&j.t, "quantize");
    if (code) return code;
    tool_set(&j.t, "method", json_string(j.method_name));
    tool_set(&j.t, "bits", json_integer(j.quantizer.bits));
    tool_set(&j.t, "group_size", json_integer(j.quantizer.group_size));
    eqat_model *model = NULL;
    eqat_status st = check_bits(&j);
    if (st == EQAT_OK) st = check_out(&j.t, j.out);
    if (st == EQAT_OK) st = eqat_model_open(j.t.ctx, &model, j.path, &j.model);
    if (st == EQAT_OK) st = check_shapes(&j, model);
    if (st == EQAT_OK) st = run_block_ap(&j, model);
    if (st == EQAT_OK && j.method == EFFICIENTQAT) st = run_e2e(&j, model);
    if (st == EQAT_OK) st = save(&j, model);
    eqat_model_free(model);
    return tool_close(&j.t, st);
}

int command_e2e_qp(int argc, char **argv)
{
    static const char *const sampling_fields[] = {"sampling", "shuffle", "rank", "world", NULL};
    job j;
    init(&j);
    j.method = EFFICIENTQAT;
    const flag_own own[] = {
        {.name = "out",
         .value = "DIR",
         .help = "where the trained model goes: a new or empty folder",
         .text = &j.out},
        {.name = "data",
         .value = "FILE",
         .help = "training data: .txt .jsonl .npy .u16 .u32",
         .text = &j.e2e_file},
        TOOL_FLAGS(&j.t),
    };
    const flag_group groups[] = {
        {"Data", "data", "e2e-", &j.e2e_data, e2e_data_fields},
        {"Sampling", "data", "", &j.data, sampling_fields},
        {"E2E-QP", "e2e_qp", "e2e-", &j.e2e, NULL},
        {NULL, "data", "", &j.e2e_data, e2e_data_fields},
        {NULL, "e2e_qp", "", &j.e2e, NULL},
        {"Computing", "model", "", &j.model, NULL},
        {"Context", "context", "", &j.t.context, tool_context_fields},
    };
    const flag_set set = {"e2e-qp QUANTIZED --out DIR --data FILE ...",
                          "Trains the scales of a quantized model end to end. The e2e- in a "
                          "flag may be left out.",
                          own,
                          sizeof own / sizeof *own,
                          groups,
                          sizeof groups / sizeof *groups};
    int code = flags_parse(&set, argc, argv, &j.path);
    if (code >= 0) return code;
    if (!j.path) return usage_error("e2e-qp: expected a quantized MODEL");
    if (!j.out || !*j.out) return usage_error("e2e-qp: --out: expected a folder for the result");
    if (!j.e2e_file)
        return usage_error("e2e-qp: --data: expected a file of training text or tokens");
    share_sampling(&j);
    j.e2e.progress = tool_progress;
    j.e2e.progress_user = &j.t;
    code = tool_open(&j.t, "e2e-qp");
    if (code) return code;
    eqat_model *model = NULL;
    eqat_status st = check_out(&j.t, j.out);
    if (st == EQAT_OK) st = eqat_model_open(j.t.ctx, &model, j.path, &j.model);
    if (st == EQAT_OK) st = run_e2e(&j, model);
    if (st == EQAT_OK) st = save(&j, model);
    eqat_model_free(model);
    return tool_close(&j.t, st);
}
