package broker

// mark says how much must be on disk.
type mark uint64

// keeper is to store what must survive a restart; as yet nothing does.
type keeper struct{}

func (k *keeper) durable(mark) bool                                  { return true }
func (k *keeper) after(_ mark, then func(error))                     { then(nil) }
func (k *keeper) latest() mark                                       { return 0 }
func (k *keeper) putRetained(*message) mark                          { return 0 }
func (k *keeper) deleteRetained(string) mark                         { return 0 }
func (k *keeper) putDelivery(*session, *delivery) mark               { return 0 }
func (k *keeper) deleteDelivery(*session, *delivery)                 {}
func (k *keeper) releaseDelivery(*session, *delivery, *message) mark { return 0 }
func (k *keeper) putReceived(*session, uint16) mark                  { return 0 }
func (k *keeper) deleteReceived(*session, uint16) mark               { return 0 }
func (k *keeper) putSubscription(*session, *subscription) mark       { return 0 }
func (k *keeper) deleteSubscription(*session, string) mark           { return 0 }
func (k *keeper) deleteSession(*session)                             {}
func (k *keeper) letGo(*message)                                     {}
func (s *session) store()                                            {}
