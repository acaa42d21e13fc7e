/* Runs every scene: clean under many seeds, and with its fault planted, which must be reported. */
#include "check.h"

#include <stdlib.h>
#include <string>
#include <sys/wait.h>

static int passed, failed;

struct outcome {
    int code;
    std::string said;
};

static void play(const scene &s, bool planted, int seed)
{
    setenv("HOSTCUDA_SEED", std::to_string(seed).c_str(), 1);
    if (s.environment) {
        std::string e = s.environment;
        setenv(e.substr(0, e.find('=')).c_str(), e.substr(e.find('=') + 1).c_str(), 1);
    }
    s.run(planted);
    _exit(0);
}

static outcome watch(const scene &s, bool planted, int seed)
{
    int ends[2];
    if (pipe(ends) != 0) return {-1, "pipe failed"};
    fflush(nullptr);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        play(s, planted, seed);
    }
    close(ends[1]);
    outcome o;
    char text[512];
    for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;) o.said.append(text, (size_t)n);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    o.code = WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
    return o;
}

/* Whether one of the words between bars is in the message. */
static bool tells(const std::string &said, const char *words)
{
    while (*words) {
        size_t n = strcspn(words, "|");
        if (said.find(std::string(words, n)) != std::string::npos) return true;
        words += words[n] ? n + 1 : n;
    }
    return false;
}

static void judge(const scene &s, const char *how, int seed, bool good, const outcome &o)
{
    if (good) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED: %s, %s, seed %d: exit code %d: %s\n", s.name, how, seed, o.code,
           o.said.c_str());
}

static void run(const scene &s, int seeds)
{
    std::string said;
    for (int seed = 1; seed <= seeds; seed++) {
        outcome o = watch(s, false, seed);
        judge(s, "clean", seed, o.code == 0, o);
    }
    for (int seed = 1; s.words && seed <= seeds; seed++) {
        outcome o = watch(s, true, seed);
        judge(s, "planted", seed, o.code == 86 && tells(o.said, s.words), o);
        said = o.said;
    }
    printf("%s: %s\n", s.name, s.words ? said.substr(0, said.find('\n')).c_str() : "clean");
}

int main(int argc, char **argv)
{
    int seeds = argc > 1 ? atoi(argv[1]) : 12;
    for (const scene *list : {kernel_scenes, order_scenes, host_scenes})
        for (const scene *s = list; s->name; s++)
            if (argc < 3 || strcmp(argv[2], s->name) == 0) run(*s, seeds);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
