#!/bin/busybox sh
# The guest's first program. FERRY_WORK, FERRY_MIB and FERRY_RATE come from the kernel's command line.
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /tmp

busy() {
    # What a small server does: files come and go, text is sorted, packed, searched, counted.
    n=0
    while true; do
        n=$((n + 1))
        find /files -type f | sort -R | head -n 400 >/tmp/list
        tar -cf - -T /tmp/list 2>/dev/null | gzip -1 >/tmp/packed.$((n % 4)).gz
        xargs cat </tmp/list | tr -cs 'A-Za-z' '\n' | sort >/tmp/sorted
        awk '{ seen[$1]++ } END { for (word in seen) print seen[word], word }' /tmp/sorted >/tmp/counts
        grep -rl import /files >/tmp/found.$((n % 8))
        tail -n 5000 /tmp/sorted >>/tmp/log
        [ "$(wc -c </tmp/log)" -lt 30000000 ] || : >/tmp/log
        echo "ferry round=$n"
    done
}

case ${FERRY_WORK:-writer} in
    busy) busy & ;;
esac
echo "ferry up"
exec /writer "${FERRY_MIB:-64}" "${FERRY_RATE:-20}" /pages
