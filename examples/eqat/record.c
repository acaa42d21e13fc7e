#include "record.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "tool.h"

static void processor_name(char *out, size_t size)
{
    char line[256];
    struct utsname system;
    *out = 0;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && !*out && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (!strncmp(line, "model name", 10) && colon)
            snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (f) fclose(f);
    if (!*out) snprintf(out, size, "%s", uname(&system) == 0 ? system.machine : "unknown");
}

static json_t *arguments(const char *command, int argc, char **argv)
{
    json_t *list = json_array();
    json_array_append_new(list, json_string(command));
    for (int i = 0; i < argc; i++) json_array_append_new(list, tool_text(argv[i]));
    return list;
}

json_t *record_new(const char *command, int argc, char **argv)
{
    char when[32], processor[256];
    time_t now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    processor_name(processor, sizeof processor);
    return json_pack("{s:s,s:s,s:s,s:s,s:o,s:o,s:{},s:[]}", "event", "run", "command", command,
                     "time", when, "version", eqat_version(), "processor", tool_text(processor),
                     "arguments", arguments(command, argc, argv), "options", "files");
}

static json_t *value_of(const eqat_field *f, const void *options)
{
    const void *m = (const char *)options + f->offset;
    switch ((eqat_field_type)f->type) {
    case EQAT_FIELD_BOOL: return json_boolean(*(const bool *)m);
    case EQAT_FIELD_I32: return json_integer(*(const int32_t *)m);
    case EQAT_FIELD_I64: return json_integer(*(const int64_t *)m);
    case EQAT_FIELD_U64: return json_integer((json_int_t) * (const uint64_t *)m);
    case EQAT_FIELD_F64: return tool_number(*(const double *)m);
    case EQAT_FIELD_ENUM: return json_string(f->names[*(const int32_t *)m]);
    case EQAT_FIELD_STRING:
        return *(const char *const *)m ? tool_text(*(const char *const *)m) : json_null();
    case EQAT_FIELD_POINTER: break;
    }
    return NULL;
}

void record_options(json_t *run, const char *section, const char *struct_name, const void *options)
{
    json_t *values = json_object();
    eqat_field f = {.struct_size = sizeof f};
    for (size_t i = 0; eqat_options_field(struct_name, i, &f) == EQAT_OK; i++)
        if (f.type != EQAT_FIELD_POINTER)
            json_object_set_new(values, f.name, value_of(&f, options));
    json_object_set_new(json_object_get(run, "options"), section, values);
}

void record_file(json_t *run, const char *use, const char *path, long long bytes,
                 const char *sha256)
{
    json_array_append_new(json_object_get(run, "files"),
                          json_pack("{s:s,s:o,s:I,s:s}", "use", use, "path", tool_text(path),
                                    "bytes", (json_int_t)bytes, "sha256", sha256));
}
