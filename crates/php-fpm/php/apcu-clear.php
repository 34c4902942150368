<?php
/*
 * Empties APCu, this PHP's user cache, and says so as one JSON object. Installed as
 * /usr/share/safe-service-restart/apcu-clear.php, owned by root; run by PHP-FPM when the crate `php-fpm` asks over FastCGI.
 * It takes no input, and it leaves opcache alone: that must never be reset in a process that is running. Runs on PHP 7.4
 * and later.
 *
 *     {"php": "8.2.32", "apcu": {"state": "cleared"}}
 *
 * or another "state": "off", not enabled here; "missing", the extension is not loaded; or "refused", with the reason in "why".
 */

// What a pool's auto_prepend_file has printed is none of our JSON.
while (ob_get_level() > 0 && ob_end_clean()) {
}

$apcu = (function () {
    if (!extension_loaded('apcu')) {
        return ['state' => 'missing'];
    }
    foreach (['apcu_enabled', 'apcu_clear_cache'] as $function) {
        if (!function_exists($function)) {
            return ['state' => 'refused', 'why' => "$function is among disable_functions"];
        }
    }
    if (!apcu_enabled()) {
        return ['state' => 'off'];
    }
    return apcu_clear_cache() ? ['state' => 'cleared'] : ['state' => 'refused', 'why' => 'apcu_clear_cache failed'];
})();

header('Content-Type: application/json');
header('Cache-Control: no-store, no-cache, must-revalidate, max-age=0');
header('Expires: Thu, 01 Jan 1970 00:00:00 GMT');
echo json_encode(['php' => PHP_VERSION, 'apcu' => $apcu], JSON_INVALID_UTF8_SUBSTITUTE), "\n";
