/* Queued work: launches, copies, products, allocations and frees, in streams. It runs when somebody
 * waits, in an order that streams, events and waits allow and the seed draws.
 */
#ifndef HOSTCUDA_STREAMS_H
#define HOSTCUDA_STREAMS_H

#include "clocks.h"
#include "stamps.h"

#include "hostcuda/host.h"

#include <functional>
#include <mutex>

namespace hostcuda
{

/* Held by every call of the interface; queued work runs under it. */
std::recursive_mutex &turn();

/* ---- queueing ---- */
/* The stream behind a handle, NULL being the default stream of the thread's device; NULL: there is
 * none, or none any more. */
stream *stream_of(cudaStream_t handle);
/* Queues work. `name` must stay valid. */
void enqueue(stream *s, const char *name, std::function<void()> run);
/* Slot and number of what was queued last in the stream. */
uint32_t slot_of(const stream *s);
uint32_t number_of(const stream *s);
int device_of(const stream *s);

/* ---- waiting; `who` is the call that does, for the report ---- */
void wait_for(stream *s, const char *who);
/* For everything, on every device. */
void wait_for_all(const char *who);
/* Of calls that may wait on a device, and do not here, where that order would hide faults: the
 * report alone has it. */
void would_wait_for(const stream *s, const char *who);
void would_wait_for_all(const char *who);
/* That an allocation was made to fail. */
void report_refusal(const char *what, long number);

/* ---- the work that runs ---- */
/* Its name; "host" when none runs. */
const char *running_name();
/* What is ordered before it, itself included. */
const clock &running_clock();
uint32_t running_slot();
uint32_t running_number();
int running_device();
/* Whether work that ran in this phase, earlier, is ordered before it. */
bool is_settled(uint64_t phase);
/* The name of the work of a phase. */
const char *name_at(uint64_t phase);
/* Slot and number of the work of a phase. */
void work_at(uint64_t phase, uint32_t *slot, uint32_t *number);

/* From now on every call fails with this error; queued work is dropped. */
void break_device(cudaError_t error);
cudaError_t broken();

} // namespace hostcuda

#endif
