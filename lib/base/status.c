#include "eqat/status.h"

const char *eqat_status_name(eqat_status status)
{
    switch (status) {
    case EQAT_OK: return "ok";
    case EQAT_INVALID_ARGUMENT: return "invalid argument";
    case EQAT_OUT_OF_MEMORY: return "out of memory";
    case EQAT_IO: return "io";
    case EQAT_FORMAT: return "format";
    case EQAT_UNSUPPORTED: return "unsupported";
    case EQAT_NOT_FOUND: return "not found";
    case EQAT_EXISTS: return "exists";
    case EQAT_NUMERIC: return "numeric";
    case EQAT_CANCELLED: return "cancelled";
    case EQAT_BACKEND: return "backend";
    }
    return "unknown status";
}
