#include <stdio.h>

#include "base/context.h"

/* The contract is one line: names and file content quoted in a message must not break it. */
static void put_line(char line[EQI_ERROR_MAX], const char *format, va_list args)
{
    vsnprintf(line, EQI_ERROR_MAX, format, args);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = ' ';
}

eqat_status eqi_fail(eqi_ctx *ctx, eqat_status status, const char *format, ...)
{
    if (!ctx) return status;
    va_list args;
    va_start(args, format);
    put_line(ctx->error, format, args);
    va_end(args);
    return status;
}

eqat_status eqi_fail_in(eqi_ctx *ctx, eqat_status status, const char *format, ...)
{
    if (!ctx) return status;
    char inner[EQI_ERROR_MAX], outer[256];
    snprintf(inner, sizeof inner, "%s", ctx->error);
    va_list args;
    va_start(args, format);
    vsnprintf(outer, sizeof outer, format, args);
    va_end(args);
    return eqi_fail(ctx, status, "%s: %s", outer, inner);
}

void eqi_log(eqi_ctx *ctx, eqi_log_level level, const char *format, ...)
{
    if (!ctx->log || (int)level > ctx->log_level) return;
    char line[EQI_ERROR_MAX];
    va_list args;
    va_start(args, format);
    put_line(line, format, args);
    va_end(args);
    ctx->log(ctx->log_user, level, line);
}

eqat_status eqi_check_cancel(eqi_ctx *ctx)
{
    if (!atomic_exchange_explicit(&ctx->cancelled, 0, memory_order_relaxed)) return EQAT_OK;
    return eqi_fail(ctx, EQAT_CANCELLED, "cancelled");
}
