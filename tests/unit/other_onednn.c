/* A program that brings a oneDNN of another major version, whose symbols come first. */
#include <stdio.h>
#include <string.h>

#include "cpu/onednn.h"
#include "engine/engine.h"

const dnnl_version_t *dnnl_version(void)
{
    static const dnnl_version_t other = {.major = DNNL_VERSION_MAJOR + 1, .minor = 4, .patch = 7};
    return &other;
}

int main(void)
{
    char error[200] = "", expected[200];
    snprintf(expected, sizeof expected, "oneDNN: found version %d.4.7, expected %d",
             DNNL_VERSION_MAJOR + 1, DNNL_VERSION_MAJOR);
    eqi_ctx *ctx = NULL;
    eqi_ctx_config config = {.device = "cpu", .threads = 1};
    eqat_status st = eqi_ctx_create(&ctx, &config, error, sizeof error);
    if (st == EQAT_UNSUPPORTED && !strcmp(error, expected)) return 0;
    fprintf(stderr, "found status %d, \"%s\", expected \"%s\"\n", (int)st, error, expected);
    return 1;
}
