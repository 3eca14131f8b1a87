package flash

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"golang.org/x/sys/unix"
)

const sectorSize = 512

// Partition is where a partition lies in an image, in bytes.
type Partition struct{ Start, Size int64 }

// Partitions reads the partition table of an image of Raspberry Pi OS: the boot partition, then root.
func Partitions(image string) (boot, root Partition, err error) {
	file, err := os.Open(image)
	if err != nil {
		return boot, root, fmt.Errorf("opening the image: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	table := make([]byte, sectorSize)
	if _, err := file.ReadAt(table, 0); err != nil || table[510] != 0x55 || table[511] != 0xaa {
		return boot, root, fmt.Errorf("%s is not an image of a card: it has no partition table", image)
	}
	at := func(i int) Partition {
		entry := table[446+16*i:]
		return Partition{
			Start: int64(binary.LittleEndian.Uint32(entry[8:])) * sectorSize,
			Size:  int64(binary.LittleEndian.Uint32(entry[12:])) * sectorSize,
		}
	}
	if boot, root = at(0), at(1); boot.Size == 0 || root.Size == 0 {
		return boot, root, fmt.Errorf("%s is not an image of Raspberry Pi OS: it has no two partitions", image)
	}
	return boot, root, nil
}

// image is the FAT32 boot partition inside of an image. What is written is kept in memory until Sync,
// so that a failure before that leaves the image as it was.
type image struct {
	staged *staged
	part   Partition
	fat    *fat32.FileSystem
}

// OpenImage is the boot partition of an image file, read and written without mounting it.
func OpenImage(file *os.File, part Partition) (Volume, error) {
	v := &image{staged: &staged{file: file, blocks: map[int64][]byte{}, before: map[int64][]byte{}}, part: part}
	return v, v.open()
}

func (v *image) open() (err error) {
	v.fat, err = fat32.Read(v.staged, v.part.Size, v.part.Start, sectorSize)
	if err != nil {
		return fmt.Errorf("the first partition is not FAT32: %w", err)
	}
	return nil
}

func (v *image) has(name string) (bool, error) {
	entries, err := v.fat.ReadDir(".")
	if err != nil {
		return false, fmt.Errorf("reading the boot partition: %w", err)
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.EqualFold(e.Name(), name) && !e.IsDir() }), nil
}

func (v *image) Read(name string) (File, error) {
	there, err := v.has(name)
	if err != nil {
		return File{}, err
	}
	if !there {
		return File{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	file, err := v.fat.Open(name)
	if err != nil {
		return File{}, fmt.Errorf("opening %s: %w", name, err)
	}
	defer file.Close() //nolint:errcheck // only read
	info, err := file.Stat()
	if err != nil {
		return File{}, fmt.Errorf("opening %s: %w", name, err)
	}
	// In one piece: the library reads too much where a read ends within a cluster.
	data := make([]byte, info.Size())
	if _, err := file.Read(data); err != nil && !errors.Is(err, io.EOF) {
		return File{}, fmt.Errorf("reading %s: %w", name, err)
	}
	return File{Path: name, Data: data}, nil
}

func (v *image) Write(f File) error {
	if strings.Contains(f.Path, "/") || f.Link != "" {
		return fmt.Errorf("%s: only plain files at the top of the boot partition", f.Path)
	}
	file, err := v.fat.OpenFile(f.Path, os.O_CREATE|os.O_RDWR|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("making %s: %w", f.Path, err)
	}
	if _, err := io.Copy(file, bytes.NewReader(f.Data)); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", f.Path, err), file.Close())
	}
	return file.Close()
}

// Sync writes what was staged into the image.
func (v *image) Sync() error {
	if err := v.forgetFreeCount(); err != nil {
		return err
	}
	if err := v.staged.commit(); err != nil {
		return err
	}
	return v.open()
}

func (v *image) Rollback() []string {
	if err := v.staged.rollback(); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// forgetFreeCount sets the number of free clusters to unknown, which the file system may: it is a
// hint (Microsoft FAT32 specification, FSI_Free_Count), and the library does not keep it.
func (v *image) forgetFreeCount() error {
	bootSector := make([]byte, sectorSize)
	if _, err := v.staged.ReadAt(bootSector, v.part.Start); err != nil {
		return fmt.Errorf("reading the boot sector: %w", err)
	}
	info := v.part.Start + (int64(bootSector[48])|int64(bootSector[49])<<8)*sectorSize
	signature := make([]byte, 4)
	if _, err := v.staged.ReadAt(signature, info+484); err != nil || string(signature) != "rrAa" {
		return errors.Join(errors.New("the boot partition has no FSInfo sector"), err)
	}
	_, err := v.staged.WriteAt([]byte{0xff, 0xff, 0xff, 0xff}, info+488)
	return err
}

// stagedBlock is the unit in which staged keeps what was written; partitions start at multiples of it.
const stagedBlock = 4096

// staged is an image file whose changes stay in memory until commit. It is not safe for concurrent use.
type staged struct {
	file   *os.File
	blocks map[int64][]byte // written and not committed, by number
	before map[int64][]byte // what was there before
	offset int64
}

func (s *staged) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		number, within := (off+int64(n))/stagedBlock, (off+int64(n))%stagedBlock
		part := p[n:min(len(p), n+int(stagedBlock-within))]
		if block, ok := s.blocks[number]; ok {
			n += copy(part, block[within:])
			continue
		}
		read, err := s.file.ReadAt(part, off+int64(n))
		n += read
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *staged) WriteAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		number, within := (off+int64(n))/stagedBlock, (off+int64(n))%stagedBlock
		block, ok := s.blocks[number]
		if !ok {
			block = make([]byte, stagedBlock)
			if _, err := s.file.ReadAt(block, number*stagedBlock); err != nil && !errors.Is(err, io.EOF) {
				return n, err
			}
			s.blocks[number] = block
		}
		n += copy(block[within:], p[n:])
	}
	return n, nil
}

// commit writes the blocks and keeps what was there.
func (s *staged) commit() error {
	for _, number := range slices.Sorted(maps.Keys(s.blocks)) {
		if _, ok := s.before[number]; !ok {
			old := make([]byte, stagedBlock)
			if _, err := s.file.ReadAt(old, number*stagedBlock); err != nil {
				return fmt.Errorf("reading the image: %w", err)
			}
			s.before[number] = old
		}
		if _, err := s.file.WriteAt(s.blocks[number], number*stagedBlock); err != nil {
			return fmt.Errorf("writing the image: %w", err)
		}
	}
	clear(s.blocks)
	return s.sync()
}

// rollback makes the image what it was before the first commit.
func (s *staged) rollback() error {
	clear(s.blocks)
	for number, old := range s.before {
		if _, err := s.file.WriteAt(old, number*stagedBlock); err != nil {
			return fmt.Errorf("writing the image back: %w", err)
		}
	}
	clear(s.before)
	return s.sync()
}

func (s *staged) sync() error {
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("syncing the image: %w", err)
	}
	// Advice only, as in writeNew: read back from the disk.
	_ = unix.Fadvise(int(s.file.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}

// The rest is what the library wants of a disk besides.

var _ backend.Storage = (*staged)(nil)

func (s *staged) Stat() (fs.FileInfo, error)              { return s.file.Stat() }
func (s *staged) Close() error                            { return nil }
func (s *staged) Sys() (*os.File, error)                  { return nil, backend.ErrNotSuitable }
func (s *staged) Writable() (backend.WritableFile, error) { return s, nil }
func (s *staged) Path() string                            { return s.file.Name() }

func (s *staged) Read(p []byte) (int, error) {
	n, err := s.ReadAt(p, s.offset)
	s.offset += int64(n)
	return n, err
}

func (s *staged) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
		s.offset = offset
	case io.SeekCurrent:
		s.offset += offset
	default:
		info, err := s.file.Stat()
		if err != nil {
			return 0, err
		}
		s.offset = info.Size() + offset
	}
	return s.offset, nil
}
