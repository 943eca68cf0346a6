/// --transfer and --shuffle: experts that were made for another model, and how much of them could be applied.
#ifndef TOOLS_TRANSFER_H
#define TOOLS_TRANSFER_H

#include "cli.h"

typedef struct transfer {
    bool wanted;
    const char *shuffle; // as typed; NULL: ordered
    uint64_t seed;
} transfer;

/// Two lines of a command's options.
#define TRANSFER_OPTIONS(t)                                                                                                                \
    {"transfer", 0, CLI_FLAG, &(t)->wanted, NULL, "accept experts made for another model, and tell how much of them is applied"}, {        \
        "shuffle", 0, CLI_STRING, &(t)->shuffle, "SEED", "with --transfer: their numbers in a random order, as a control"                  \
    }

/// Reads the seed; CLI_USAGE after a message. experts: whether some were named.
int transfer_prepare(transfer *transfer, const cli_command *command, bool experts);
/// Puts an expert's numbers, or those of a set, into the random order that was asked for, if one was; either may be NULL.
zs_status transfer_shuffle(const transfer *transfer, zs_expert_set *experts, zs_expert *expert, zs_error *error);

/// What of the set's experts, its dispatcher and another expert (either may be NULL) fits the model: an array with an object for each;
/// null when no transfer was asked for.
json_t *transfer_report(const transfer *transfer, const zs_model *model, const zs_expert_set *experts, const zs_expert *expert);
/// The same as text on standard error, for a person.
void transfer_tell(const transfer *transfer, const cli_common *common, const zs_model *model, const zs_expert_set *experts,
                   const zs_expert *expert);

#endif
