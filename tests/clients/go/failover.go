package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const (
	start          = patience
	ackedAfterKill = 300
	afterKill      = 8 * time.Second
	heal           = patience
)

// flight is a producer that sends unique payloads all the time.
type flight struct {
	mu     sync.Mutex
	acked  []string
	failed int
	gap    time.Duration
	last   error
	stop   chan struct{}
	ended  chan struct{}
}

func (f *flight) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acked)
}

func (f *flight) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed, f.gap = 0, 0
}

func (f *flight) sendAll(p rocketmq.Producer, topic string) {
	defer close(f.ended)
	last := time.Now()
	for i := 0; ; i++ {
		select {
		case <-f.stop:
			return
		case <-time.After(2 * time.Millisecond):
		}
		payload := fmt.Sprintf("flight-%d", i)
		result, err := p.SendSync(context.Background(), message(topic, "tag", payload))
		f.mu.Lock()
		if err == nil && result.Status == primitive.SendOK {
			f.acked = append(f.acked, payload)
			if gap := time.Since(last); gap > f.gap {
				f.gap = gap
			}
			last = time.Now()
		} else {
			f.failed++
			f.last = err
		}
		f.mu.Unlock()
	}
}

// failover: in flight while the leader is killed. Every acknowledged payload must be consumed.
func failover(l *lab) error {
	topic := l.topic(failoverName)
	p, err := l.producer(producer.WithRetry(5))
	if err != nil {
		return err
	}
	f := &flight{stop: make(chan struct{}), ended: make(chan struct{})}
	go f.sendAll(p, topic)
	if err := until(start, "messages flowing", func() bool { return f.count() >= 10 }); err != nil {
		return err
	}
	box := newInbox()
	if _, err := l.push(l.group(failoverName), topic, "*", box.handle); err != nil {
		return err
	}
	if err := until(start, "messages consumed", func() bool { return f.count() >= 100 && box.size() >= 50 }); err != nil {
		return err
	}
	f.reset()
	report("READY")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	atKill := f.count()
	time.Sleep(afterKill)
	err = until(heal, fmt.Sprintf("%d acknowledged after the kill", ackedAfterKill), func() bool {
		return f.count() >= atKill+ackedAfterKill
	})
	close(f.stop)
	<-f.ended
	if err != nil {
		return fmt.Errorf("%v, last failure %v", err, f.last)
	}
	if err := box.await(f.acked, heal); err != nil {
		return err
	}
	report("NOTE %s acked %d (%d after the kill), %d failed, longest time without an acknowledgement %d ms",
		failoverName, len(f.acked), len(f.acked)-atKill, f.failed, f.gap.Milliseconds())
	return nil
}
