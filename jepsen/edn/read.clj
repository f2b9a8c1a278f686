;; Reads histories with Clojure's own EDN reader and holds them to the shape jepsen.tests.kafka expects.
(require '[clojure.edn :as edn] '[clojure.java.io :as io])

(defn offset-and-value? [pair]
  (and (vector? pair) (= 2 (count pair)) (nat-int? (first pair)) (or (nil? (second pair)) (nat-int? (second pair)))))

(defn send? [mop value?]
  (let [[f k v] mop] (and (= 3 (count mop)) (= :send f) (nat-int? k) (value? v))))

(defn poll? [mop]
  (let [[f found] mop]
    (and (= 2 (count mop)) (= :poll f) (map? found)
         (every? nat-int? (keys found))
         (every? #(and (vector? %) (every? offset-and-value? %)) (vals found)))))

(defn value? [{:keys [type f value]}]
  (case f
    :fault (string? value)
    :assign (and (vector? value) (every? nat-int? value))
    :send (every? #(send? % (if (= :ok type) offset-and-value? nat-int?)) value)
    :poll (if (= :ok type) (every? poll? value) (= [[:poll]] value))
    false))

(defn complaint
  "What is wrong with an operation after those before it, if anything."
  [{:keys [open crashed time-before]} index {:keys [type process time] :as op}]
  (cond
    (not= index (:index op)) "its index is not its place"
    (not (nat-int? time)) "its time is no number"
    (< time time-before) "it is earlier than the one before"
    (not (value? op)) "its value is not that of its :f"
    (= :nemesis process) (when-not (= :info type) "a fault is :info")
    (not (nat-int? process)) "its process is no number"
    (crashed process) "its process had an :info outcome before"
    (= :invoke type) (when (open process) "its process has not completed the one before")
    (not (#{:ok :fail :info} type)) "its type is none"
    (not= (:f op) (open process)) "it completes nothing that was invoked"))

(defn step [state {:keys [type process f time]}]
  (cond-> (assoc state :time-before time)
    (= :invoke type) (assoc-in [:open process] f)
    (not= :invoke type) (update :open dissoc process)
    (and (= :info type) (not= :nemesis process)) (update :crashed conj process)))

(defn check [file]
  (with-open [lines (io/reader file)]
    (loop [state {:open {} :crashed #{} :time-before 0} index 0 [line & more] (line-seq lines)]
      (if (nil? line)
        (println "OK  " file index "operations")
        (let [op (edn/read-string line)]
          (if-let [wrong (complaint state index op)]
            (do (println "FAIL" file "line" (inc index) "-" wrong "-" line) (System/exit 1))
            (recur (step state op) (inc index) more)))))))

(run! check *command-line-args*)
