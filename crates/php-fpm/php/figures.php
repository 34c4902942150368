<?php
/*
 * The figures of this PHP's opcode cache and user cache, as one JSON object. Installed as
 * /usr/share/safe-service-restart/figures.php, owned by root; run by PHP-FPM when the crate `php-fpm` asks over FastCGI.
 * It takes no input: nothing in a request changes what it does. It changes nothing either: opcache must never be reset in
 * a process that is running. Runs on PHP 7.4 and later.
 *
 *     {"php": "8.2.32", "opcache": CACHE, "apcu": CACHE}
 *
 * where a CACHE has a "state": "on", with the figures in "figures"; "off", not enabled here; "missing", the extension is
 * not loaded; or "refused", it is there but does not tell, with the reason in "why".
 */

// APCu's list of free blocks takes some 450 bytes a block while it is read. This is enough for a million blocks, and where it
// is not, APCu is "refused" instead of the machine running out of memory. Lasts for this request.
ini_set('memory_limit', '512M');

// What a pool's auto_prepend_file has printed is none of our JSON.
while (ob_get_level() > 0 && ob_end_clean()) {
}

$figures = ['php' => PHP_VERSION, 'opcache' => null, 'apcu' => ['state' => 'refused', 'why' => 'not read']];

// Memory that is given back first when the limit is reached, so that there is some left to say so.
$reserve = str_repeat(' ', 65536);
register_shutdown_function(function () use (&$figures, &$reserve) {
    $reserve = null;
    $error = error_get_last();
    if ($error !== null && $error['type'] === E_ERROR) {
        http_response_code(200);
        $figures['apcu'] = ['state' => 'refused', 'why' => $error['message']];
    }
    header('Content-Type: application/json');
    header('Cache-Control: no-store, no-cache, must-revalidate, max-age=0');
    header('Expires: Thu, 01 Jan 1970 00:00:00 GMT');
    echo json_encode($figures, JSON_PARTIAL_OUTPUT_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE), "\n";
});

$figures['opcache'] = (function () {
    if (!extension_loaded('Zend OPcache')) {
        return ['state' => 'missing'];
    }
    if (!function_exists('opcache_get_status')) {
        return ['state' => 'refused', 'why' => 'opcache_get_status is among disable_functions'];
    }
    error_clear_last();
    $status = @opcache_get_status(false);
    if (is_array($status)) {
        // One that keeps code in files alone says that it is not enabled.
        $isOn = $status['opcache_enabled'] || !empty($status['file_cache_only']);
        return ['state' => $isOn ? 'on' : 'off', 'figures' => $status];
    }
    $error = error_get_last();
    return $error === null ? ['state' => 'off'] : ['state' => 'refused', 'why' => $error['message']];
})();

$figures['apcu'] = (function () {
    if (!extension_loaded('apcu')) {
        return ['state' => 'missing'];
    }
    foreach (['apcu_enabled', 'apcu_cache_info', 'apcu_sma_info'] as $function) {
        if (!function_exists($function)) {
            return ['state' => 'refused', 'why' => "$function is among disable_functions"];
        }
    }
    if (!apcu_enabled()) {
        return ['state' => 'off'];
    }
    error_clear_last();
    // Without the list of keys.
    $cache = @apcu_cache_info(true);
    $memory = $cache === false ? false : @apcu_sma_info(false);
    if ($cache === false || $memory === false) {
        $error = error_get_last();
        return ['state' => 'refused', 'why' => $error === null ? 'no reason given' : $error['message']];
    }

    // As APCu's own page computes it: the share of free memory in blocks below 5 MiB; none while there is but one block.
    $blocks = 0;
    $free = 0;
    $fragments = 0;
    foreach ($memory['block_lists'] as $list) {
        foreach ($list as $block) {
            $blocks++;
            $free += $block['size'];
            if ($block['size'] < 5 * 1024 * 1024) {
                $fragments += $block['size'];
            }
        }
    }
    return ['state' => 'on', 'figures' => [
        'fragmentation' => $blocks > 1 && $free > 0 ? 100 * $fragments / $free : 0,
        'free_blocks' => $blocks,
        'memory_size' => (int) ($memory['num_seg'] * $memory['seg_size']),
        'memory_free' => (int) $memory['avail_mem'],
        'entries' => (int) $cache['num_entries'],
        'hits' => (int) $cache['num_hits'],
        'misses' => (int) $cache['num_misses'],
        'inserts' => (int) $cache['num_inserts'],
        'expunges' => (int) ($cache['expunges'] ?? 0),
    ]];
})();
