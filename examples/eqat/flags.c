#include "flags.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_LENGTH 96

static bool is_among(const char *const *words, const char *value)
{
    for (size_t i = 0; words[i]; i++)
        if (!strcmp(words[i], value)) return true;
    return false;
}

static bool offered(const flag_group *g, const char *field)
{
    return !g->fields || is_among(g->fields, field);
}

/* "e2e-" and "train_size" to "e2e-train-size" */
static void flag_name(char *out, const flag_group *g, const char *field)
{
    snprintf(out, NAME_MAX_LENGTH, "%s%s", g->prefix, field);
    for (char *p = out; *p; p++)
        if (*p == '_') *p = '-';
}

/* The present value of a field, as text that the flag would accept. */
static void value_text(const eqat_field *f, const void *options, char *out, size_t size)
{
    const void *m = (const char *)options + f->offset;
    switch ((eqat_field_type)f->type) {
    case EQAT_FIELD_BOOL: snprintf(out, size, "%s", *(const bool *)m ? "on" : "off"); break;
    case EQAT_FIELD_I32: snprintf(out, size, "%d", *(const int32_t *)m); break;
    case EQAT_FIELD_I64: snprintf(out, size, "%lld", (long long)*(const int64_t *)m); break;
    case EQAT_FIELD_U64:
        snprintf(out, size, "%llu", (unsigned long long)*(const uint64_t *)m);
        break;
    case EQAT_FIELD_F64: snprintf(out, size, "%g", *(const double *)m); break;
    case EQAT_FIELD_ENUM: snprintf(out, size, "%s", f->names[*(const int32_t *)m]); break;
    case EQAT_FIELD_STRING:
        snprintf(out, size, "%s", *(const char *const *)m ? *(const char *const *)m : "none");
        break;
    case EQAT_FIELD_POINTER: snprintf(out, size, "none"); break;
    }
}

static bool is_folder(const char *field)
{
    size_t length = strlen(field);
    return length > 4 && !strcmp(field + length - 4, "_dir");
}

static const char *value_hint(const eqat_field *f)
{
    switch ((eqat_field_type)f->type) {
    case EQAT_FIELD_BOOL: return "on|off";
    case EQAT_FIELD_I32:
    case EQAT_FIELD_I64:
    case EQAT_FIELD_U64: return "N";
    case EQAT_FIELD_F64: return "X";
    case EQAT_FIELD_STRING: return is_folder(f->name) ? "DIR" : "WORD";
    default: return "WORD";
    }
}

static bool has_field(const flag_group *g, const char *name)
{
    eqat_field f = {.struct_size = sizeof f};
    for (size_t i = 0; eqat_options_field(g->struct_name, i, &f) == EQAT_OK; i++)
        if (!strcmp(f.name, name)) return offered(g, name);
    return false;
}

/* What a table says of its members, said of their flags: "as lr_unit says", "as --e2e-lr-unit
 * says". */
static void help_text(const flag_group *g, const char *help, char *out, size_t size)
{
    size_t used = 0;
    while (*help && used + 1 < size) {
        char word[NAME_MAX_LENGTH], flag[NAME_MAX_LENGTH];
        size_t length = strspn(help, "abcdefghijklmnopqrstuvwxyz_");
        bool name = length && length < sizeof word && memchr(help, '_', length);
        if (name) snprintf(word, sizeof word, "%.*s", (int)length, help);
        if (name && has_field(g, word)) {
            flag_name(flag, g, word);
            used += (size_t)snprintf(out + used, size - used, "--%s", flag);
        } else {
            length += !length;
            used += (size_t)snprintf(out + used, size - used, "%.*s", (int)length, help);
        }
        help += length;
    }
}

static void walk_group(const flag_group *group, flag_visit visit, void *user)
{
    static const char *const on_off[] = {"on", "off", NULL};
    eqat_field f = {.struct_size = sizeof f};
    for (size_t i = 0; eqat_options_field(group->struct_name, i, &f) == EQAT_OK; i++) {
        if (f.type == EQAT_FIELD_POINTER || !offered(group, f.name)) continue;
        char name[NAME_MAX_LENGTH], value[256], help[1024] = "";
        flag_name(name, group, f.name);
        help_text(group, f.help, help, sizeof help);
        value_text(&f, group->options, value, sizeof value);
        visit(user,
              &(flag_row){.section = group->title,
                          .name = name,
                          .value = value_hint(&f),
                          .words = f.type == EQAT_FIELD_BOOL ? on_off : f.names,
                          .help = help,
                          .fallback = value});
    }
}

void flags_walk(const flag_set *set, flag_visit visit, void *user)
{
    for (size_t i = 0; i < set->n_own; i++) {
        const flag_own *o = &set->own[i];
        visit(user,
              &(flag_row){.name = o->name, .value = o->value, .words = o->words, .help = o->help});
    }
    visit(user, &(flag_row){.name = "help", .help = "this text"});
    for (size_t g = 0; g < set->n_groups; g++)
        if (set->groups[g].title) walk_group(&set->groups[g], visit, user);
}

static void print_row(void *user, const flag_row *row)
{
    const char **section = user;
    if (row->section && row->section != *section) printf("\n%s\n", row->section);
    *section = row->section;
    char left[NAME_MAX_LENGTH + 16];
    snprintf(left, sizeof left, "--%s%s%s", row->name, row->value ? " " : "",
             row->value ? row->value : "");
    printf("  %-28s %s", left, row->help);
    if (row->fallback) printf(" (default %s)", row->fallback);
    printf("\n");
}

static void print_help(const flag_set *set)
{
    const char *section = NULL;
    printf("usage: eqat %s\n\n%s\n\n", set->usage, set->about);
    flags_walk(set, print_row, &section);
}

int flags_refuse(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "eqat: ");
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return 2;
}

static int usage_error(const flag_set *set, const char *format, const char *what, const char *more)
{
    fprintf(stderr, "eqat: ");
    fprintf(stderr, format, what, more);
    fprintf(stderr, "\nusage: eqat %s\n", set->usage);
    return 2;
}

/* The library keeps the reason in a context; one is made just to hear it. */
static int value_error(const flag_set *set, const flag_group *group, const char *field,
                       const char *flag, const char *value)
{
    eqat_context *ctx;
    eqat_context_options o;
    eqat_context_options_init(&o, sizeof o);
    o.threads = 1;
    if (eqat_context_create(&ctx, &o, NULL, 0) != EQAT_OK)
        return usage_error(set, "--%s: cannot take \"%s\"", flag, value);
    eqat_options_set(ctx, group->struct_name, group->options, field, value);
    int code = usage_error(set, "--%s: %s", flag, eqat_context_error(ctx));
    eqat_context_free(ctx);
    return code;
}

static int append(const flag_set *set, const flag_own *own, const char *value)
{
    flag_values *l = own->list;
    if (l->count == sizeof l->items / sizeof *l->items)
        return usage_error(set, "--%s: found too many%s, expected at most 256", own->name, "");
    l->items[l->count].name = own->name;
    l->items[l->count++].value = value;
    return -1;
}

static int word_error(const flag_set *set, const flag_own *own, const char *value)
{
    char name[NAME_MAX_LENGTH], expected[256] = "";
    size_t used = 0;
    for (size_t i = 0; own->words[i] && used < sizeof expected; i++)
        used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s",
                                 !i                      ? ""
                                     : own->words[i + 1] ? ", "
                                                         : " or ",
                                 own->words[i]);
    snprintf(name, sizeof name, "%s: found \"%.40s\"", own->name, value);
    return usage_error(set, "--%s, expected %s", name, expected);
}

/* Finds a flag by the name in `arg`; stores the value. Returns -1 when stored, -2 when no such
 * flag, else an exit code. */
static int store(const flag_set *set, const char *arg, const char *name, const char *value,
                 bool *took_value)
{
    *took_value = true;
    for (size_t i = 0; i < set->n_own; i++) {
        const flag_own *o = &set->own[i];
        if (strcmp(o->name, name)) continue;
        if (o->on) {
            *o->on = true;
            *took_value = false;
            return -1;
        }
        if (!value) return usage_error(set, "--%s: expected a value: %s", name, o->value);
        if (o->list) return append(set, o, value);
        if (o->words && !is_among(o->words, value)) return word_error(set, o, value);
        *o->text = value;
        return -1;
    }
    for (size_t g = 0; g < set->n_groups; g++) {
        const flag_group *group = &set->groups[g];
        eqat_field f = {.struct_size = sizeof f};
        for (size_t i = 0; eqat_options_field(group->struct_name, i, &f) == EQAT_OK; i++) {
            char full[NAME_MAX_LENGTH];
            flag_name(full, group, f.name);
            if (f.type == EQAT_FIELD_POINTER || !offered(group, f.name) || strcmp(full, name))
                continue;
            if (!value) return usage_error(set, "--%s: expected a value: %s", name, value_hint(&f));
            if (group->given) *group->given = arg;
            if (eqat_options_set(NULL, group->struct_name, group->options, f.name, value) ==
                EQAT_OK)
                return -1;
            return value_error(set, group, f.name, name, value);
        }
    }
    return -2;
}

static void (*shown_to)(void *user, const flag_set *set);
static void *shown_user;

void flags_show(void (*show)(void *user, const flag_set *set), void *user)
{
    shown_to = show;
    shown_user = user;
}

int flags_parse(const flag_set *set, int argc, char **argv, const char **positional)
{
    *positional = NULL;
    if (set->second) *set->second = NULL;
    if (shown_to) {
        shown_to(shown_user, set);
        return 0;
    }
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
            print_help(set);
            return 0;
        }
        if (arg[0] != '-' || !arg[1]) {
            const char **place = *positional && set->second ? set->second : positional;
            if (*place)
                return usage_error(set, "unexpected argument \"%s\" after \"%s\"", arg, *place);
            *place = arg;
            continue;
        }
        char name[NAME_MAX_LENGTH];
        const char *equals = strchr(arg, '=');
        const char *start = arg + (arg[1] == '-' ? 2 : 1);
        size_t length = equals ? (size_t)(equals - start) : strlen(start);
        if (arg[1] != '-' || length == 0 || length >= sizeof name)
            return usage_error(set, "unknown flag %s%s", arg, "");
        memcpy(name, start, length);
        name[length] = 0;
        /* A flag is no value of the one before: what was left out is told, not taken from further
         * on. */
        const char *value = equals                               ? equals + 1
            : i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0 ? argv[i + 1]
                                                                 : NULL;
        bool took_value;
        int code = store(set, arg, name, value, &took_value);
        if (code == -2) return usage_error(set, "unknown flag --%s%s", name, "");
        if (code >= 0) return code;
        if (equals && !took_value)
            return usage_error(set, "--%s takes no value, found \"%s\"", name, value);
        if (took_value && !equals) i++;
    }
    return -1;
}
