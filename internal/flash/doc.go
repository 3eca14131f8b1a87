// Package flash prepares a card on which Raspberry Pi OS has just been written,
// so that its first boot installs files.
//
// There are three ways, and all of them install the same files:
//
//   - [Files] writes them into the mounted root file system. Nothing is left to
//     do on first boot.
//   - [CloudInit] puts an archive and a script on the FAT boot partition and
//     has user-data run the script (Raspberry Pi OS Trixie).
//   - [FirstRun] does the same with firstrun.sh, which the kernel's command line
//     names to systemd-run-generator(8) (Raspberry Pi OS Bookworm). What
//     Raspberry Pi Imager has put there is kept.
//
// A [Card] says what the card supports, [Card.Plan] gives the changes without
// making one, and [Apply] makes them: all of them, read back from the card, or
// none. The change that makes the first boot look at the others comes last.
//
// On the boot partition everything can be read by whoever has the card. The
// script overwrites and removes the archive once its files are installed.
package flash
