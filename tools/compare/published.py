"""Published figures of QEMU with QATzip, for comparison with ours. Copied as they were printed.

Sources: the cover letter of the series, v4, and Intel's reply to its review, both on qemu-devel in
July 2024; QEMU's docs/devel/migration/qatzip-compression.rst. All with an idle guest whose RAM held
the repeated Silesia corpus, without prealloc at the destination. CPU in per cent of one core.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRow:
    """One row; None where the source has no such column."""

    channels: int
    method: str
    total_ms: float
    throughput_mbps: float
    send_cpu: float
    recv_cpu: float
    downtime_ms: float | None = None
    pages_per_second: int | None = None


@dataclass(frozen=True)
class PublishedTable:
    """One table. `bandwidth_bytes` per second is its limit, 0 for none. The limits were typed as 1G, 10G and
    1250M, which QEMU's monitor takes as powers of two: 8613 mbps came through the first."""

    source: str
    bandwidth_bytes: int
    rows: tuple[PublishedRow, ...]


def _cover_letter(channels: int, *rows: tuple[str, float, float, float, float]) -> tuple[PublishedRow, ...]:
    return tuple(
        PublishedRow(channels, method, seconds * 1e3, mbps, send, recv)
        for method, seconds, mbps, send, recv in rows
    )


def _review(*rows: tuple[int, str, float, float, float, float, float]) -> tuple[PublishedRow, ...]:
    return tuple(
        PublishedRow(channels, method, total, mbps, send, recv, downtime)
        for channels, method, total, downtime, mbps, send, recv in rows
    )


TABLES = (
    PublishedTable(
        "cover letter v4 (Bytedance, 60 GiB, about 50 Gbit/s)",
        0,
        (
            *_cover_letter(
                4,
                ("qatzip", 23.13, 8749.94, 117.50, 186.49),
                ("zlib", 254.35, 771.87, 388.20, 144.40),
                ("zstd", 54.52, 3442.59, 414.59, 149.77),
                ("none", 12.45, 43739.60, 159.71, 204.96),
            ),
            *_cover_letter(
                8,
                ("qatzip", 16.91, 12306.52, 186.37, 391.84),
                ("zlib", 130.11, 1508.89, 753.86, 289.35),
                ("zstd", 27.57, 6823.23, 786.83, 303.80),
                ("none", 11.82, 46072.63, 163.74, 238.56),
            ),
            *_cover_letter(
                16,
                ("qatzip", 18.64, 11044.52, 573.61, 437.65),
                ("zlib", 66.43, 2955.79, 1469.68, 567.47),
                ("zstd", 14.17, 13290.66, 1504.08, 615.33),
                ("none", 16.82, 32363.26, 180.74, 217.17),
            ),
        ),
    ),
    PublishedTable(
        "review of v4 (Intel, 54 GiB, limit 1 GB/s)",
        1 << 30,
        _review(
            (2, "qatzip", 21607, 77, 8051, 88, 125),
            (2, "zstd", 78351, 96, 2199, 204, 80),
            (4, "qatzip", 20336, 25, 8557, 110, 190),
            (4, "zstd", 39324, 31, 4389, 406, 160),
            (8, "qatzip", 20208, 22, 8613, 125, 300),
            (8, "zstd", 20515, 22, 8438, 800, 340),
        ),
    ),
    PublishedTable(
        "review of v4 (Intel, 54 GiB, limit 10 GB/s)",
        10 << 30,
        _review(
            (2, "qatzip", 22450, 77, 7748, 80, 125),
            (2, "zstd", 78339, 76, 2199, 204, 80),
            (4, "qatzip", 13017, 24, 13401, 180, 285),
            (4, "zstd", 39466, 21, 4373, 406, 160),
            (8, "qatzip", 10255, 22, 17037, 280, 590),
            (8, "zstd", 20126, 77, 8595, 810, 340),
        ),
    ),
    PublishedTable(
        "QEMU's QATzip document (54 GiB, 10 Gbit/s)",
        1250 << 20,
        (
            PublishedRow(8, "qatzip", 16630, 10467, 160, 360, 28, 2940235),
            PublishedRow(8, "zstd", 20165, 8579, 810, 340, 24, 2391465),
            PublishedRow(8, "none", 46063, 10848, 45, 85, 40, 330240),
        ),
    ),
)
