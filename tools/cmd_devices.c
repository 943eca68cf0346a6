#include "cli.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const tier_names[] = {CLI_TIERS}; // the first, strict, has no bit
enum { TIERS = sizeof tier_names / sizeof *tier_names };

static const char *type_name(zs_device_type type) {
    static const char *const names[] = {"discrete", "integrated", "virtual", "cpu", "other"};
    return names[type];
}

/// Opens the device for its self-test; the tiers that are really used, or false with the reason.
static bool test_device(const cli_common *common, const zs_device_info *info, uint32_t *tiers, zs_error *error) {
    char index[16];
    snprintf(index, sizeof index, "%u", info->index);
    cli_common one = *common;
    one.device = index;
    zs_device *device;
    if (cli_open_device(&one, &device, error)) return false;
    *tiers = zs_device_get_tiers(device);
    zs_device_destroy(&device);
    return true;
}

static json_t *device_json(const zs_device_info *d, bool tested, uint32_t tiers, const char *problem) {
    char version[32];
    snprintf(version, sizeof version, "%u.%u.%u", d->api_version >> 22 & 127, d->api_version >> 12 & 1023, d->api_version & 4095);
    return json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:b, s:o, s:o, s:s}", "index", (int)d->index, "name", d->name, "uuid",
                     d->uuid, "type", type_name(d->type), "driver", d->driver, "vulkan", version, "subgroup_size", (int)d->subgroup_size,
                     "memory_bytes", (json_int_t)d->memory_bytes, "free_bytes", (json_int_t)d->free_bytes, "usable", tested,
                     "tiers_offered", cli_tiers_json(d->tiers), "tiers", cli_tiers_json(tested ? tiers : 0), "problem", problem);
}

static void print_device(const zs_device_info *d, bool tested, uint32_t tiers, const char *problem) {
    printf("%u  %s\n   %s, %s, Vulkan %u.%u, %.1f GB (%.1f free), subgroups of %u\n   uuid %s\n", d->index, d->name, type_name(d->type),
           d->driver, d->api_version >> 22 & 127, d->api_version >> 12 & 1023, (double)d->memory_bytes / 1e9, (double)d->free_bytes / 1e9,
           d->subgroup_size, d->uuid);
    if (!tested) {
        printf("   not usable: %s\n", problem);
        return;
    }
    printf("   tiers: %s", tier_names[0]);
    for (uint32_t i = 1; i < TIERS; i++) {
        if (tiers >> (i - 1) & 1)
            printf(" %s", tier_names[i]);
        else if (d->tiers >> (i - 1) & 1)
            printf(" (%s: off)", tier_names[i]);
    }
    printf("\n   self-test passed\n");
}

int cmd_devices(int argc, char **argv) {
    cli_common common = {0};
    const cli_command command = {"devices", "", "lists Vulkan devices and what they can do", "zsigma devices", NULL, &common};
    int positional;
    bool stop;
    int result = cli_parse(&command, argc, argv, &positional, &stop);
    if (result || stop) return result;
    if (positional) return cli_usage(&command, "no arguments are expected");
    zs_error error;
    zs_device_info *infos;
    uint32_t count, usable = 0;
    if (zs_device_list(&infos, &count, &error)) return cli_fail(&error);
    json_t *list = json_array();
    for (uint32_t i = 0; i < count; i++) {
        uint32_t tiers = 0;
        error.message[0] = 0;
        bool tested = infos[i].usable && test_device(&common, &infos[i], &tiers, &error);
        const char *problem = tested ? "" : infos[i].usable ? error.message : infos[i].missing;
        usable += tested;
        if (common.json)
            json_array_append_new(list, device_json(&infos[i], tested, tiers, problem));
        else
            print_device(&infos[i], tested, tiers, problem);
    }
    if (common.json) cli_print_json(json_incref(list));
    json_decref(list);
    free(infos);
    return usable ? CLI_DONE : CLI_FAILED;
}
