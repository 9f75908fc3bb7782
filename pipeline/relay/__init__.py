"""Real VMs: a migration's streams between two unmodified QEMUs, through two relays, over links that break.

The source's QEMU migrates to a Unix socket of the relay beside it, that relay calls the other, and the other
calls the socket on which the destination's QEMU waits. Each connection of QEMU's is a *stream*: bytes in
order, both ways, delivered once. What QEMU does when a relay stalls, closes or dies was found by experiment;
this page is what follows from it.

The states of a migration
-------------------------
    GATHERING   connections come, no byte has gone to the destination
    MOVING      main's first bytes are on their way; the source's guest runs, or has been paused at its end
    COMMITTING  the commit byte may have been delivered, SHUT has not: the destination's guest may run
    POSTCOPY    the destination's guest runs, and asks for its pages
    DONE        SHUT has reached the source: its guest is the destination's
    ENDED       nothing is connected any more

The destination's point of no return is one byte on main (QEMU_VM_EOF, in front of the description of its
devices' state); it runs from then on, and says SHUT on main's return path afterwards. A source that loses
main before SHUT runs its own guest again. So:

    what happens                         GATHERING, MOVING            COMMITTING
    main of the source ends              drop what is held, close     the same: the source has given up
                                         the destination's side
    any other stream breaks              close all, both sides        pass it on, wait for SHUT
    main of the destination ends         close all, both sides        close the source's: the destination
    without SHUT                                                      is dead, and the source goes on
    the other relay is gone, for         close all, both sides        keep the source's main open, go on
    `--reconnect` seconds                                             calling, say `undecided`
    the other relay says that it lost    close all, both sides        the same, but for its word that the
    the migration                                                     commit byte was not delivered: close
    Ctrl-C, SIGTERM twice                close all, both sides        as if the other relay were gone

In POSTCOPY both guests are one: a cut that is too long closes both sides fully, both QEMUs pause, and the
recovery that the operator orders (`migrate-recover`, then `migrate` with `resume`) comes as a migration of
its own. The end of a good migration begins with multifd's ends, at the destination, before SHUT: an end is
passed on after all that was sent before it, each direction by itself, and main is closed only after SHUT.

Without a return path there is no SHUT. The source is done when its last byte is in the relay, so a tail that
is lost leaves no guest running: refused, unless `--without-return-path` says that this is known.

With `--qmp` on both sides the relays are the controller that closes what is left of the gap: the
destination's QEMU does not start its guest by itself, and is told to only when the source has completed.

What the streams carry
----------------------
Main's bytes never overtake what was read before them (a destination that waits for multifd's bytes has a
dead monitor), and the destination is called only with main's first four bytes, or all 64 of a multifd
connection, in hand, for the same reason. What is under way counts as sent for QEMU, and is downtime that it
does not know of: it is bounded by what the destination takes in a round trip and 30 ms.

Sources: QEMU's migration/socket.c, multifd.c, savevm.c and migration.c (10.0), and experiments with 10.0.2.
"""
