/* Completions for shells, made of the tables behind --help. */
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "tool.h"

/* Text inside single quotes; what stands in `escaped` gets a backslash before it. */
static void print_quoted(const char *text, const char *escaped, const char *quote)
{
    for (; *text; text++) {
        if (*text == '\'')
            printf("%s", quote);
        else
            printf(strchr(escaped, *text) ? "\\%c" : "%c", *text);
    }
}

static void print_words(const char *const *words)
{
    for (size_t i = 0; words[i]; i++) printf("%s%s", i ? " " : "", words[i]);
}

static bool is_file(const flag_row *row) { return row->value && !strcmp(row->value, "FILE"); }
static bool is_folder(const flag_row *row) { return row->value && !strcmp(row->value, "DIR"); }

/* ---- bash ---- */

static void bash_flag(void *user, const flag_row *row)
{
    (void)user;
    printf(" --%s", row->name);
}

static void bash_flags(void *user, const command *c, const flag_set *set)
{
    (void)user;
    printf("    %s) echo '", c->name);
    flags_walk(set, bash_flag, NULL);
    printf("' ;;\n");
}

static void bash_value(void *user, const flag_row *row)
{
    const command *c = user;
    if (!row->value) return;
    printf("    '%s --%s') echo '", c->name, row->name);
    if (row->words)
        print_words(row->words);
    else
        printf(is_file(row) ? "@file" : is_folder(row) ? "@folder" : "@other");
    printf("' ;;\n");
}

static void bash_values(void *user, const command *c, const flag_set *set)
{
    (void)user;
    flags_walk(set, bash_value, (void *)c);
    printf("    '%s ') echo '", c->name);
    if (set->words)
        print_words(set->words);
    else
        printf("@file");
    printf("' ;;\n");
}

static void print_bash(void)
{
    printf(
        "# bash completion for eqat\n\n_eqat_flags() { # COMMAND\n    case $1 in\n    '') echo '");
    for (const command *c = commands; c->name; c++) printf(" %s", c->name);
    printf("' ;;\n");
    commands_walk(bash_flags, NULL);
    printf("    esac\n}\n\n"
           "# Words, or @file, @folder, @other; nothing after a switch.\n"
           "_eqat_values() { # \"COMMAND FLAG\", FLAG empty: the argument\n    case $1 in\n");
    commands_walk(bash_values, NULL);
    printf(
        "    esac\n}\n\n"
        "_eqat() {\n"
        "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
        "    local command='' values='' joined=''\n"
        "    ((COMP_CWORD > 1)) && command=${COMP_WORDS[1]}\n"
        "    # --flag=value is three words, or one where = breaks none.\n"
        "    if [[ $current == = ]]; then\n"
        "        current=''\n"
        "    elif [[ $before == = ]]; then\n"
        "        before=${COMP_WORDS[COMP_CWORD - 2]}\n"
        "    elif [[ $current == --*=* ]]; then\n"
        "        before=${current%%%%=*} joined=${current%%%%=*}= current=${current#*=}\n"
        "    fi\n"
        "    [[ $command && $before == --* ]] && values=$(_eqat_values \"$command $before\")\n"
        "    if [[ ! $values ]]; then\n"
        "        if [[ ! $command || $current == -* ]]; then\n"
        "            values=$(_eqat_flags \"$command\")\n"
        "        else\n"
        "            values=$(_eqat_values \"$command \")\n"
        "        fi\n"
        "    fi\n"
        "    COMPREPLY=()\n"
        "    case $values in\n"
        "    @file | @folder)\n"
        "        compopt -o filenames 2>/dev/null\n"
        "        [[ $values == @file ]] && values=-f || values=-d\n"
        "        mapfile -t COMPREPLY < <(compgen \"$values\" -P \"$joined\" -- \"$current\")\n"
        "        ;;\n"
        "    @other) ;;\n"
        "    *)\n"
        "        mapfile -t COMPREPLY < <(compgen -W \"$values\" -P \"$joined\" -- \"$current\")\n"
        "        ;;\n"
        "    esac\n"
        "}\n\n"
        "complete -F _eqat eqat\n");
}

/* ---- zsh ---- */

static void zsh_flag(void *user, const flag_row *row)
{
    (void)user;
    printf(" \\\n        '--%s%s[", row->name, row->value ? "=" : "");
    print_quoted(row->help, "[]:\\", "'\\''");
    printf("]");
    if (row->value) printf(":%s:", row->value);
    if (row->words) {
        printf("(");
        print_words(row->words);
        printf(")");
    } else if (is_file(row)) {
        printf("_files");
    } else if (is_folder(row)) {
        printf("_files -/");
    }
    printf("'");
}

static void zsh_command(void *user, const command *c, const flag_set *set)
{
    (void)user;
    printf("    %s)\n        _arguments", c->name);
    flags_walk(set, zsh_flag, NULL);
    printf(" \\\n        '1:argument:");
    if (set->words) {
        printf("(");
        print_words(set->words);
        printf(")'\n        ;;\n");
    } else {
        printf("_files'\n        ;;\n");
    }
}

static void print_zsh(void)
{
    printf("#compdef eqat\n\n_eqat() {\n    local -a names\n    names=(\n");
    for (const command *c = commands; c->name; c++) {
        printf("        '%s:", c->name);
        print_quoted(c->help, "\\", "'\\''");
        printf("'\n");
    }
    printf("    )\n"
           "    if ((CURRENT == 2)); then\n"
           "        _describe command names\n"
           "        return\n"
           "    fi\n"
           "    shift words\n"
           "    ((CURRENT--))\n"
           "    case $words[1] in\n");
    commands_walk(zsh_command, NULL);
    printf("    esac\n}\n\n"
           "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then\n"
           "    _eqat \"$@\"\n"
           "else\n"
           "    compdef _eqat eqat\n"
           "fi\n");
}

/* ---- fish ---- */

static void fish_flag(void *user, const flag_row *row)
{
    const command *c = user;
    printf("complete -c eqat -n '__fish_seen_subcommand_from %s' -l %s", c->name, row->name);
    if (row->words) {
        printf(" -x -a '");
        print_words(row->words);
        printf("'");
    } else if (is_file(row)) {
        printf(" -r -F");
    } else if (is_folder(row)) {
        printf(" -x -a '(__fish_complete_directories)'");
    } else if (row->value) {
        printf(" -x");
    }
    printf(" -d '");
    print_quoted(row->help, "\\", "\\'");
    printf("'\n");
}

static void fish_command(void *user, const command *c, const flag_set *set)
{
    (void)user;
    flags_walk(set, fish_flag, (void *)c);
    if (!set->words) return;
    printf("complete -c eqat -n '__fish_seen_subcommand_from %s' -f -a '", c->name);
    print_words(set->words);
    printf("'\n");
}

static void print_fish(void)
{
    printf("# fish completion for eqat\n\n");
    for (const command *c = commands; c->name; c++) {
        if (c->name[0] == '-')
            printf("complete -c eqat -n __fish_use_subcommand -l %s -d '", c->name + 2);
        else
            printf("complete -c eqat -n __fish_use_subcommand -f -a %s -d '", c->name);
        print_quoted(c->help, "\\", "\\'");
        printf("'\n");
    }
    commands_walk(fish_command, NULL);
}

int command_completion(int argc, char **argv)
{
    static const char *const names[] = {"bash", "zsh", "fish", NULL};
    static void (*const print[])(void) = {print_bash, print_zsh, print_fish};
    const flag_set set = {.usage = "completion SHELL",
                          .about = "Prints the completions for bash, zsh or fish.",
                          .words = names};
    const char *shell;
    int code = flags_parse(&set, argc, argv, &shell);
    if (code >= 0) return code;
    for (size_t i = 0; shell && names[i]; i++)
        if (!strcmp(shell, names[i])) return print[i](), 0;
    return flags_refuse("completion: found %s, expected bash, zsh or fish",
                        shell ? shell : "nothing");
}
