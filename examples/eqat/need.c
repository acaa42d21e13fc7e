#include "need.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "need_sizes.h"
#include "need_time.h"

/* ---- what there is ---- */

static double read_number(const char *path, const char *key)
{
    char line[256];
    double value = INFINITY;
    size_t length = strlen(key);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, length) && sscanf(line + length, "%lf", &value) == 1) break;
    if (f) fclose(f);
    return value;
}

/* Of the machine, of the group of processes, and of this one. */
static double available_memory(void)
{
    double available = 1024 * read_number("/proc/meminfo", "MemAvailable:");
    double group = read_number("/sys/fs/cgroup/memory.max", "") -
        read_number("/sys/fs/cgroup/memory.current", "");
    struct rlimit limit;
    if (group < available) available = group; /* not when either is missing */
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        double own = (double)limit.rlim_cur - 1024 * read_number("/proc/self/status", "VmSize:");
        if (own < available) available = own;
    }
    return available;
}

static double available_disk(const char *folder)
{
    struct statvfs s;
    if (statvfs(folder, &s) != 0) return INFINITY;
    return (double)s.f_bavail * (double)s.f_frsize;
}

static const char *parent_of(const char *out, char parent[PATH_MAX])
{
    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/') length--;
    while (length > 0 && out[length - 1] != '/') length--;
    snprintf(parent, PATH_MAX, "%.*s", (int)length, out);
    return length ? parent : ".";
}

/* ---- told ---- */

static void bytes_text(double bytes, char text[32])
{
    if (bytes >= 1e9)
        snprintf(text, 32, "%.1f GB", bytes / 1e9);
    else
        snprintf(text, 32, "%.0f MB", bytes / 1e6);
}

typedef struct amounts {
    double seconds, memory, offload, out, out_peak; /* needed; seconds NAN: not measured */
    double checkpoints;
    double device; /* memory of its own; 0: it has none */
    double memory_there, offload_there, out_there, checkpoints_there, device_there;
} amounts;

static void say(tool *t, const amounts *a)
{
    char memory[32], there[32], out[32], offload[32], kept[32], duration[32], line[256] = "";
    char device[32], free[32], first[256] = "";
    bytes_text(a->memory, memory);
    bytes_text(a->memory_there, there);
    bytes_text(a->out, out);
    bytes_text(a->offload, offload);
    bytes_text(a->checkpoints, kept);
    if (a->offload > 0) snprintf(line, sizeof line, ", %s in --offload-dir", offload);
    if (a->checkpoints > 0)
        snprintf(line + strlen(line), sizeof line - strlen(line), ", %s in --checkpoint-dir", kept);
    if (isfinite(a->seconds)) {
        tool_duration(a->seconds, duration, sizeof duration);
        snprintf(line + strlen(line), sizeof line - strlen(line), ", about %s", duration);
    }
    bytes_text(a->device, device);
    bytes_text(a->device_there, free);
    if (a->device > 0)
        snprintf(first, sizeof first, "%s on %.64s (%s available), ", device, t->context.device,
                 free);
    if (t->context.log_level >= EQAT_LOG_INFO)
        fprintf(stderr, "eqat: needs %s%s of memory (%s available), %s for the result%s\n", first,
                memory, there, out, line);
    json_t *event = json_pack(
        "{s:s,s:o,s:f,s:f,s:f,s:f,s:o,s:o}", "event", "need", "seconds", tool_number(a->seconds),
        "memory_bytes", a->memory, "disk_bytes", a->offload, "checkpoint_bytes", a->checkpoints,
        "out_bytes", a->out, "memory_available_bytes", tool_number(a->memory_there),
        "disk_available_bytes", tool_number(a->offload > 0 ? a->offload_there : a->out_there));
    if (a->device > 0)
        json_object_update_new(event,
                               json_pack("{s:f,s:f}", "device_bytes", a->device,
                                         "device_available_bytes", a->device_there));
    tool_event(t, event);
}

static eqat_status refuse(tool *t, const char *what, double needed, double there, const char *help)
{
    char needs[32], has[32];
    bytes_text(needed, needs);
    bytes_text(there, has);
    return tool_fail(t, EQAT_OUT_OF_MEMORY, "%s: needs %s, found %s available; %s", what, needs,
                     has, help);
}

/* In place of so many bytes at most of the host or of a device. */
static const char *smaller(const need *n, const need_phases *p)
{
    if (n->e2e_data && p->e2e >= p->block_ap) {
        if (n->e2e->keep_activations) return "without --e2e-keep-activations it is less";
        if (n->on_device && !n->e2e->host_state)
            return "--e2e-host-state on keeps moments and inputs of blocks on the host";
        return "a smaller --e2e-micro-batch-size or --e2e-seq-len helps";
    }
    if (n->data) return "a smaller --batch-size or --seq-len helps";
    return "a machine with more of it is needed";
}

static const char *smaller_on_host(const need *n, const need_sizes *s, const amounts *a)
{
    bool many = n->data && s->streams - a->offload > a->memory / 4;
    if (many && n->block_ap->offload_dir) return "a smaller --offload-memory helps";
    if (many)
        return "--offload-dir keeps activations on disk, a smaller --train-size or --seq-len makes "
               "fewer of them";
    return smaller(n, &s->host);
}

static eqat_status judge(tool *t, const need *n, const need_sizes *s, const amounts *a)
{
    if (a->memory > a->memory_there)
        return refuse(t, "memory", a->memory, a->memory_there, smaller_on_host(n, s, a));
    if (a->device > a->device_there) {
        char what[80];
        snprintf(what, sizeof what, "memory of %.64s", t->context.device);
        return refuse(t, what, a->device, a->device_there, smaller(n, &s->device));
    }
    if (a->offload > a->offload_there)
        return refuse(t, n->block_ap->offload_dir, a->offload, a->offload_there,
                      "a smaller --train-size, or another --offload-dir, helps");
    if (a->out_peak > a->out_there)
        return refuse(t, n->out, a->out_peak, a->out_there, "--out on another disk helps");
    if (a->checkpoints > a->checkpoints_there)
        return refuse(t, n->checkpoint_dir, a->checkpoints, a->checkpoints_there,
                      "--checkpoint-dir on another disk helps");
    return EQAT_OK;
}

/* Norms aside, which are as wide everywhere. */
static bool widens(const need_sizes *s) { return s->ends > 1.05 * s->ends_in; }

static eqat_status check_ends(tool *t, const need *n, const need_sizes *s)
{
    if (!n->keep_ends || !widens(s)) return EQAT_OK;
    return tool_fail(t, EQAT_UNSUPPORTED,
                     "--keep-ends: found embeddings and head of fewer than 16 bits, which a folder "
                     "cannot hold, expected --format gguf");
}

static void warn(tool *t, const need *n, const need_sizes *s)
{
    eqat_model_info m = {.struct_size = sizeof m};
    if (eqat_model_inspect(n->model, &m) != EQAT_OK) return;
    if (n->quantizer && m.linear_bits < 6)
        tool_warn(t,
                  "the input has %.1f bits per parameter of the linears already: what it lost to "
                  "them stays lost; full precision makes a better result",
                  m.linear_bits);
    if (n->quantizer && s->out > (double)t->input_bytes)
        tool_warn(t, "the result (%.1f MB) is larger than the input (%.1f MB)%s", s->out / 1e6,
                  (double)t->input_bytes / 1e6,
                  widens(s) ? ": embeddings and head become 16-bit, for a folder holds no fewer "
                              "bits of them; --format gguf --keep-ends leaves them as they are"
                            : "");
    if (n->data) tool_warn_context(t, n->model, n->data->seq_len);
    if (n->e2e_data) tool_warn_context(t, n->model, n->e2e_data->seq_len);
}

static double larger(double a, double b) { return a > b ? a : b; }

static bool on_one_disk(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev;
}

/* On the disk of the result, what that leaves. */
static double for_checkpoints(const need *n, const amounts *a)
{
    char parent[PATH_MAX];
    if (!n->checkpoint_dir) return INFINITY;
    double there = available_disk(n->checkpoint_dir);
    return on_one_disk(n->checkpoint_dir, parent_of(n->out, parent)) ? there - a->out_peak : there;
}

eqat_status need_check(tool *t, const need *n)
{
    need_sizes s;
    char parent[PATH_MAX];
    amounts a = {.seconds = NAN};
    eqat_status st = need_sizes_of(n, &s);
    if (st != EQAT_OK) return st;
    bool offloads = n->data && n->block_ap->offload_dir;
    double stays = offloads ? fmin(s.streams, (double)n->block_ap->offload_memory) : s.streams;
    a.offload = s.streams - stays;
    a.device = larger(s.device.block_ap, s.device.e2e);
    a.device_there =
        (double)eqat_context_device_bytes(t->ctx) + (double)eqat_context_device_bytes_left(t->ctx);
    a.memory = larger(s.host.block_ap + stays, s.host.e2e) +
        1024 * read_number("/proc/self/status", "VmRSS:");
    a.out = s.out;
    a.out_peak = n->stages ? 2 * s.out : s.out;
    a.memory_there = available_memory();
    a.offload_there = offloads ? available_disk(n->block_ap->offload_dir) : INFINITY;
    a.out_there = available_disk(parent_of(n->out, parent));
    a.checkpoints = s.checkpoints;
    a.checkpoints_there = for_checkpoints(n, &a);
    warn(t, n, &s);
    st = check_ends(t, n, &s);
    if (st == EQAT_OK) st = judge(t, n, &s, &a);
    if (st == EQAT_OK) st = need_time(t, n, &s, &a.seconds);
    say(t, &a);
    return st;
}
