package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The layout of a bbolt file, version 2, as far as its structure can be checked
// without mapping it: bbolt trusts it, and a page number out of the file would
// end the process. bbolt writes in the byte order of the machine, and all
// machines that this runs on are little-endian.
const (
	pageHeader    = 16 // id uint64, flags uint16, count uint16, overflow uint32
	elementHeader = 16 // both kinds of page

	branchPage = 0x01
	leafPage   = 0x02

	bucketElement = 0x01
	bucketHeader  = 16 // root uint64 (0: the page follows inline), sequence uint64

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaSummed  = 56 // bytes of the meta structure under its checksum
	noFreelist  = ^uint64(0)

	metaPages = 2

	maxDepth = 32
)

// boltMeta is what a meta page says.
type boltMeta struct {
	pageSize                    uint32
	root, freelist, pages, txid uint64
}

// checker walks the pages of a file.
type checker struct {
	r     io.ReaderAt
	pages uint64 // in use; page numbers are below
	seen  map[uint64]bool
}

// check refuses with ErrDamaged what bbolt could not work on safely. It returns how many pages are in use.
func check(f *os.File) (used int, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%w: not a regular file", ErrDamaged)
	}
	meta, err := newestMeta(f)
	if err != nil {
		return 0, err
	}
	if held := uint64(info.Size()) / PageSize; meta.pages > held { //nolint:gosec // a size is not negative
		return 0, fmt.Errorf("%w: %d of %d pages are missing", ErrDamaged, meta.pages-held, meta.pages)
	}
	c := &checker{r: f, pages: meta.pages, seen: map[uint64]bool{}}
	err = c.page(meta.root, span{}, 0)
	return metaPages + len(c.seen), err
}

// newestMeta reads the meta page that bbolt will go by.
func newestMeta(f *os.File) (best boltMeta, err error) {
	valid := false
	for id := range int64(metaPages) {
		page := make([]byte, PageSize)
		if _, err := f.ReadAt(page, id*PageSize); errors.Is(err, io.EOF) {
			return best, fmt.Errorf("%w: the file is truncated", ErrDamaged)
		} else if err != nil {
			return best, WithoutPath(err)
		}
		if m, ok := parseMeta(page); ok && m.pageSize != PageSize {
			return best, fmt.Errorf("%w: written by another program", ErrDamaged)
		} else if ok && (!valid || m.txid > best.txid) {
			best, valid = m, true
		}
	}
	if !valid {
		return best, fmt.Errorf("%w: no valid meta page", ErrDamaged)
	}
	if best.freelist != noFreelist {
		return best, fmt.Errorf("%w: written by another program", ErrDamaged)
	}
	return best, nil
}

// parseMeta accepts what bbolt accepts.
func parseMeta(page []byte) (boltMeta, bool) {
	le := binary.LittleEndian
	m := page[pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(m[:metaSummed]) // never returns an error
	ok := le.Uint32(m) == metaMagic && le.Uint32(m[4:]) == metaVersion && le.Uint64(m[metaSummed:]) == sum.Sum64()
	return boltMeta{
		pageSize: le.Uint32(m[8:]), root: le.Uint64(m[16:]), freelist: le.Uint64(m[32:]),
		pages: le.Uint64(m[40:]), txid: le.Uint64(m[48:]),
	}, ok
}

// rewriteMeta writes both meta pages as they are read, one after the other.
// After a failed sync the kernel takes a meta page for written that is not on
// disk, and another sync succeeds without writing it (fsync(2), under EIO); the
// next commit would then overwrite pages that the disk still needs. That the
// sync failed was told to a process that may have ended since.
func rewriteMeta(f *os.File) error {
	for id := range int64(2) {
		page := make([]byte, PageSize)
		if _, err := f.ReadAt(page, id*PageSize); err != nil {
			return WithoutPath(err)
		}
		if _, err := f.WriteAt(page, id*PageSize); err != nil {
			return WithoutPath(err)
		}
		if err := f.Sync(); err != nil {
			return WithoutPath(err)
		}
	}
	return nil
}

// page checks the page with a number and all below it. Its keys must lie in
// the span: bbolt checks the same when it opens a file, but in a goroutine of
// its own, whose panic nobody could recover.
func (c *checker) page(id uint64, keys span, depth int) error {
	if id < 2 || id >= c.pages || depth > maxDepth {
		return c.damaged(id, "is out of place")
	}
	page := make([]byte, PageSize)
	if _, err := c.r.ReadAt(page, int64(id)*PageSize); err != nil { //nolint:gosec // below the size of a file
		return WithoutPath(err)
	}
	last := id + uint64(binary.LittleEndian.Uint32(page[12:]))
	if binary.LittleEndian.Uint64(page) != id || last >= c.pages {
		return c.damaged(id, "has a wrong header")
	}
	for i := id; i <= last; i++ {
		if c.seen[i] {
			return c.damaged(i, "is used twice")
		}
		c.seen[i] = true
	}
	if last > id {
		page = make([]byte, (last-id+1)*PageSize)
		if _, err := c.r.ReadAt(page, int64(id)*PageSize); err != nil { //nolint:gosec // below the size of a file
			return WithoutPath(err)
		}
	}
	return c.elements(id, page, keys, depth)
}

// span is where keys may lie: min ≤ key < max. A nil end is open.
type span struct{ min, max []byte }

// element is one key of a page and what hangs on it.
type element struct {
	key   []byte
	value []byte // of a leaf
	child uint64 // of a branch
	flags uint32 // of a leaf
}

// elements checks what a page holds.
func (c *checker) elements(id uint64, page []byte, keys span, depth int) error {
	branch := binary.LittleEndian.Uint16(page[8:]) == branchPage
	es, ok := parseElements(page, branch)
	if !ok {
		return c.damaged(id, "has a wrong header or a key out of place")
	}
	for i, e := range es {
		inOrder := i == 0 && bytes.Compare(keys.min, e.key) <= 0 || i > 0 && bytes.Compare(es[i-1].key, e.key) < 0
		if !inOrder || keys.max != nil && bytes.Compare(e.key, keys.max) >= 0 {
			return c.damaged(id, "holds keys out of order")
		}
		var err error
		switch {
		case branch && i+1 < len(es):
			err = c.page(e.child, span{e.key, es[i+1].key}, depth+1)
		case branch:
			err = c.page(e.child, span{e.key, keys.max}, depth+1)
		case e.flags&bucketElement != 0:
			err = c.bucket(id, e.value, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseElements cuts a page into its elements; ok says that all lie inside it.
func parseElements(page []byte, branch bool) (es []element, ok bool) {
	le := binary.LittleEndian
	flags, count := le.Uint16(page[8:]), int(le.Uint16(page[10:]))
	if !branch && flags != leafPage || branch && count == 0 || pageHeader+count*elementHeader > len(page) {
		return nil, false
	}
	es = make([]element, count)
	for i := range es {
		e := page[pageHeader+i*elementHeader:]
		var pos, keyLen, valueLen uint64 // relative to e
		if branch {
			pos, keyLen = uint64(le.Uint32(e)), uint64(le.Uint32(e[4:]))
			es[i].child = le.Uint64(e[8:])
		} else {
			es[i].flags = le.Uint32(e)
			pos, keyLen, valueLen = uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
		}
		if pos+keyLen+valueLen > uint64(len(e)) {
			return nil, false
		}
		es[i].key, es[i].value = e[pos:pos+keyLen], e[pos+keyLen:pos+keyLen+valueLen]
	}
	return es, true
}

// bucket checks a nested bucket.
func (c *checker) bucket(id uint64, value []byte, depth int) error {
	if len(value) < bucketHeader {
		return c.damaged(id, "holds a short bucket")
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return c.page(root, span{}, depth+1)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || binary.LittleEndian.Uint16(inline[8:]) != leafPage || depth > maxDepth {
		return c.damaged(id, "holds a short bucket")
	}
	return c.elements(id, inline, span{}, depth+1)
}

func (c *checker) damaged(id uint64, what string) error {
	return fmt.Errorf("%w: page %d %s", ErrDamaged, id, what)
}
