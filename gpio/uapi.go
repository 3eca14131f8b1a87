package gpio

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's GPIO character device, ABI v2, since Linux 5.10: include/uapi/linux/gpio.h. The structures are laid out
// so that every 64-bit member is aligned on 32-bit machines too, without hidden padding.

const (
	uapiNameSize = 32 // GPIO_MAX_NAME_SIZE, with the final zero byte

	flagUsed         = 1 << 0 // GPIO_V2_LINE_FLAG_*
	flagActiveLow    = 1 << 1
	flagInput        = 1 << 2
	flagOutput       = 1 << 3
	flagEdgeRising   = 1 << 4
	flagEdgeFalling  = 1 << 5
	flagPullUp       = 1 << 8
	flagPullDown     = 1 << 9
	flagBiasDisabled = 1 << 10

	attrOutputValues = 2 // GPIO_V2_LINE_ATTR_ID_*
	attrDebounce     = 3
	eventRisingEdge  = 1 // GPIO_V2_LINE_EVENT_RISING_EDGE
)

// struct gpiochip_info
type uapiChipInfo struct {
	name, label [uapiNameSize]byte
	lines       uint32
}

// struct gpio_v2_line_attribute
type uapiAttribute struct {
	id, _ uint32
	value uint64 // a union of flags, values and debounce_period_us, which is 32 bits: see debounceValue
}

// struct gpio_v2_line_config
type uapiLineConfig struct {
	flags      uint64
	attributes uint32
	_          [5]uint32
	attribute  [10]struct {
		uapiAttribute
		mask uint64
	}
}

// struct gpio_v2_line_request
type uapiLineRequest struct {
	offsets  [64]uint32
	consumer [uapiNameSize]byte
	config   uapiLineConfig
	lines    uint32
	buffer   uint32 // event_buffer_size
	_        [5]uint32
	fd       uint32 // __s32, but never negative on success
}

// struct gpio_v2_line_info
type uapiLineInfo struct {
	name, consumer [uapiNameSize]byte
	offset, _      uint32 // and num_attrs
	flags          uint64
	_              [10]uapiAttribute
	_              [4]uint32
}

// struct gpio_v2_line_values
type uapiLineValues struct{ bits, mask uint64 }

// struct gpio_v2_line_event
type uapiLineEvent struct {
	timestamp uint64 // nanoseconds of CLOCK_MONOTONIC
	id        uint32
	_, _      uint32 // offset, seqno
	number    uint32 // line_seqno, from 1
	_         [6]uint32
}

const eventBytes = unsafe.Sizeof(uapiLineEvent{})

// parseEvent reads what the kernel wrote, in the byte order of the machine.
func parseEvent(b *[eventBytes]byte) uapiLineEvent {
	order := binary.NativeEndian
	return uapiLineEvent{
		timestamp: order.Uint64(b[unsafe.Offsetof(uapiLineEvent{}.timestamp):]),
		id:        order.Uint32(b[unsafe.Offsetof(uapiLineEvent{}.id):]),
		number:    order.Uint32(b[unsafe.Offsetof(uapiLineEvent{}.number):]),
	}
}

// debounceValue puts the 32 bits of a debounce period where they lie in the union of 64.
func debounceValue(period time.Duration) uint64 {
	var union [8]byte
	binary.NativeEndian.PutUint32(union[:], uint32(min(max(period.Microseconds(), 1), math.MaxUint32)))
	return binary.NativeEndian.Uint64(union[:])
}

// The request numbers hold the size of the structure, which is the same on every machine. These lines do not compile
// where the compiler lays a structure out otherwise than the kernel does.
const (
	getChipInfo   = 0x8044b401 // GPIO_GET_CHIPINFO_IOCTL
	getLineInfo   = 0xc100b405 // GPIO_V2_GET_LINEINFO_IOCTL
	getLine       = 0xc250b407 // GPIO_V2_GET_LINE_IOCTL
	setLineConfig = 0xc110b40d // GPIO_V2_LINE_SET_CONFIG_IOCTL
	getLineValues = 0xc010b40e // GPIO_V2_LINE_GET_VALUES_IOCTL
	setLineValues = 0xc010b40f // GPIO_V2_LINE_SET_VALUES_IOCTL

	_ = -(unsafe.Sizeof(uapiChipInfo{}) ^ getChipInfo>>16&0x3fff)
	_ = -(unsafe.Sizeof(uapiLineInfo{}) ^ getLineInfo>>16&0x3fff)
	_ = -(unsafe.Sizeof(uapiLineRequest{}) ^ getLine>>16&0x3fff)
	_ = -(unsafe.Sizeof(uapiLineConfig{}) ^ setLineConfig>>16&0x3fff)
	_ = -(unsafe.Sizeof(uapiLineValues{}) ^ getLineValues>>16&0x3fff)
	_ = -(unsafe.Sizeof(uapiLineEvent{}) ^ 48)
)

// ioctl makes one request about an open device or line, with data of the type that the request expects.
func ioctl[T any](f *os.File, request uintptr, data *T) error {
	return control(f, func(fd uintptr) error {
		//nolint:gosec // G103: the kernel fills in the structure, and this is the only place that hands it one
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(data)))
		if errno != 0 {
			return errno
		}
		return nil
	})
}

// control runs do with the file's descriptor, which stays open meanwhile; os.ErrClosed if it is closed already.
func control(f *os.File, do func(fd uintptr) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	doErr := os.ErrClosed // Control calls nothing on a closed file, and its error is one that nobody can test for
	_ = raw.Control(func(fd uintptr) { doErr = do(fd) })
	return doErr
}

// text is the string in a fixed field, up to its first zero byte.
func text(field [uapiNameSize]byte) string {
	before, _, _ := bytes.Cut(field[:], []byte{0})
	return string(before)
}
